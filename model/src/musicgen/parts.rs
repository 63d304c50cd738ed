//! The parts that a decoder's weights are handled in, whatever stands for a tensor: a view of the checkpoint, its bytes, its
//! place on a device.

use auscult_runtime::weights::{Loader, WeightView};

/// A layer norm's parameters, f32 `[hidden]` each.
pub(crate) struct Norm<T> {
    pub gamma: T,
    pub beta: T,
}

/// The projections of an attention block, `[hidden, hidden]` each.
pub(crate) struct Attention<T> {
    pub query: T,
    pub key: T,
    pub value: T,
    pub out: T,
}

/// One decoder layer.
pub(crate) struct Layer<T> {
    pub self_attn_norm: Norm<T>,
    pub self_attn: Attention<T>,
    pub mlp_norm: Norm<T>,
    /// `[ffn, hidden]`.
    pub fc1: T,
    /// `[hidden, ffn]`.
    pub fc2: T,
}

/// A layer's cross-attention to text, which passes without text do without.
pub(crate) struct Cross<T> {
    pub norm: Norm<T>,
    pub attn: Attention<T>,
}

/// What stands behind the last layer.
pub(crate) struct Head<T> {
    pub norm: Norm<T>,
    /// `[codebooks * vocabulary, hidden]`.
    pub logits: T,
}

/// What a norm's parameter becomes.
pub(super) type OfNorm<'f, T, U, E> = &'f dyn Fn(&T) -> Result<U, E>;

/// What a linear weight becomes, by its name in the checkpoint.
pub(super) type OfLinear<'f, T, U, E> = &'f dyn Fn(&T, &str) -> Result<U, E>;

impl<T> Norm<T> {
    pub fn try_map<U, E>(&self, of: OfNorm<'_, T, U, E>) -> Result<Norm<U>, E> {
        Ok(Norm { gamma: of(&self.gamma)?, beta: of(&self.beta)? })
    }
}

impl<T> Attention<T> {
    pub fn try_map<U, E>(&self, name: &str, linear: OfLinear<'_, T, U, E>) -> Result<Attention<U>, E> {
        let linear = |weight, part: &str| linear(weight, &format!("{name}.{part}_proj"));
        Ok(Attention {
            query: linear(&self.query, "q")?,
            key: linear(&self.key, "k")?,
            value: linear(&self.value, "v")?,
            out: linear(&self.out, "out")?,
        })
    }
}

impl<T> Cross<T> {
    pub fn try_map<U, E>(
        &self,
        norm: OfNorm<'_, T, U, E>,
        linear: OfLinear<'_, T, U, E>,
    ) -> Result<Cross<U>, E> {
        Ok(Cross { norm: self.norm.try_map(norm)?, attn: self.attn.try_map("encoder_attn", linear)? })
    }
}

impl<T> Layer<T> {
    pub fn try_map<U, E>(
        &self,
        norm: OfNorm<'_, T, U, E>,
        linear: OfLinear<'_, T, U, E>,
    ) -> Result<Layer<U>, E> {
        Ok(Layer {
            self_attn_norm: self.self_attn_norm.try_map(norm)?,
            self_attn: self.self_attn.try_map("self_attn", linear)?,
            mlp_norm: self.mlp_norm.try_map(norm)?,
            fc1: linear(&self.fc1, "fc1")?,
            fc2: linear(&self.fc2, "fc2")?,
        })
    }
}

pub(super) type View<'w> = Option<WeightView<'w>>;

pub(super) fn take_norm<'w>(loader: &Loader<'w>, name: &str, d: usize) -> Norm<View<'w>> {
    Norm {
        gamma: loader.take(&format!("{name}.weight"), &[d]),
        beta: loader.take(&format!("{name}.bias"), &[d]),
    }
}

fn take_attention<'w>(loader: &Loader<'w>, name: &str, d: usize) -> Attention<View<'w>> {
    let take = |part: &str| loader.take(&format!("{name}.{part}_proj.weight"), &[d, d]);
    Attention { query: take("q"), key: take("k"), value: take("v"), out: take("out") }
}

pub(super) fn take_layer<'w>(loader: &Loader<'w>, d: usize, ffn: usize) -> Layer<View<'w>> {
    Layer {
        self_attn_norm: take_norm(loader, "self_attn_layer_norm", d),
        self_attn: take_attention(loader, "self_attn", d),
        mlp_norm: take_norm(loader, "final_layer_norm", d),
        fc1: loader.take("fc1.weight", &[ffn, d]),
        fc2: loader.take("fc2.weight", &[d, ffn]),
    }
}

pub(super) fn take_cross<'w>(loader: &Loader<'w>, d: usize) -> Cross<View<'w>> {
    Cross {
        norm: take_norm(loader, "encoder_attn_layer_norm", d),
        attn: take_attention(loader, "encoder_attn", d),
    }
}
