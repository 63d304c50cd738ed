//! The first half of the encoder of a sparse autoencoder in half precision: which features of a row may be among its largest.
//!
//! ```text
//! pre[r, f] = sum_c x[r, c] weight[f, c] + bias[f]          x and weight bf16, sums and bias f32
//! indices[r], values[r] = the k largest pre[r], of either sign, by value descending; of equals the smaller index first
//! ```
//!
//! What is not a number comes before all numbers; negative infinity is never among them. Where there are fewer than k, the
//! places behind hold index 2^32 - 1 and value negative infinity. The pre-activations are never in memory.
//!
//! [`SaeRescore`](super::sae_rescore::SaeRescore) keeps the best of what is found here, those about the last place computed in f32,
//! and computes every feature of a row that may have more of these than were found. [`screened`] says how many to find for that.
//! Where rows and weights are like noise, what is near reaches 0.0156 of the spread of a row's pre-activations below the k-th: of
//! 32,768 normal values 4.8 lie in so wide a band below the 100th, and 41 more than k are nine times as many.
//!
//! A launch that is cut along features goes on from what the part before left in indices and values.

mod cases;
mod cpu;
mod reference;

use super::sae_encode::{Params, sizes};
use crate::{
    Cost, DType, KernelInfo, Op, Plan, Ptx, ShapeError, Slot, Split, Swizzle, Target, TensorDesc, TensorMap,
    Wgsl, fields, fold_groups,
};

/// Features of a row that are found at most.
pub const MOST_SCREENED: usize = 1536;
/// Rows of the WGSL's tile.
const TILE: u32 = 64;
/// Rows of a block of the PTX forms, and its threads: each looks through a row.
const PTX_ROWS: u32 = 128;
/// Three stages of a tile of x and one of the weight; twelve features of each row that wait.
const PTX_SHARED: u32 = 3 * 16_384 + 12_288;

/// How many features to find for the k largest: a quarter more, and 16.
pub fn screened(k: usize, features: usize) -> usize {
    features.min(k + k / 4 + 16)
}

const fn ptx(source: &'static str, entry: &'static str) -> Ptx {
    Ptx {
        registers: 240,
        dynamic_shared: |_| PTX_SHARED,
        ..Ptx::new(source, entry, [PTX_ROWS, 1, 1], |params, _| {
            [bytemuck::pod_read_unaligned::<Params>(params).rows.div_ceil(PTX_ROWS), 1, 1]
        })
    }
}

/// Features of a tile of the form for `sm_90a`; its rows are those of a block.
const HOPPER_FEATURES: u32 = 256;
/// Columns of a stage of that form: 128 bytes, which a swizzled row is.
const HOPPER_COLS: u32 = 64;
/// Four stages, two of the bias for each of two warpgroups, eight barriers.
const HOPPER_SHARED: u32 = 4 * 49_152 + 4 * 1024 + 64;
/// Blocks at most: multiprocessors of an H100 or H200. Each has lists of its own.
const HOPPER_BLOCKS: u32 = 132;

/// Bytes of a list of each row of each block. Launches of fewer rows than the most take one of few sizes, for memory is kept by size.
fn hopper_workspace(params: &[u8]) -> usize {
    let p: Params = bytemuck::pod_read_unaligned(params);
    let blocks = p.rows.div_ceil(PTX_ROWS).min(HOPPER_BLOCKS).next_power_of_two().min(HOPPER_BLOCKS);
    // what each of a row's four lanes has: half of k, a tile and some; a candidate has 8 bytes
    let places = 4 * (p.k as usize / 2 + 80);
    8 * places * (PTX_ROWS * blocks) as usize
}

/// The form with asynchronous matrix products and tensor copies.
const HOPPER: Ptx = Ptx {
    target: Target::Sm90a,
    // copies of tensors ask for rows that begin at multiples of 16 bytes
    takes: |params| bytemuck::pod_read_unaligned::<Params>(params).width.is_multiple_of(8),
    dynamic_shared: |_| HOPPER_SHARED,
    workspace: Some(hopper_workspace),
    maps: |params| {
        let p: Params = bytemuck::pod_read_unaligned(params);
        let map = |slot, rows: u32, tile| TensorMap {
            slot,
            dtype: DType::BF16,
            extents: vec![u64::from(p.width), u64::from(rows)],
            strides: vec![2 * u64::from(p.width)],
            tile: vec![HOPPER_COLS, tile],
            swizzle: Swizzle::Bytes128,
        };
        vec![map(0, p.rows, PTX_ROWS), map(1, p.features, HOPPER_FEATURES)]
    },
    registers: 168,
    ..Ptx::new(
        include_str!("sae_screen_bf16_sm90a.ptx"),
        "sae_screen_bf16_sm90a",
        [384, 1, 1],
        |params, device| {
            let tiles = bytemuck::pod_read_unaligned::<Params>(params).rows.div_ceil(PTX_ROWS);
            [tiles.min(device.multiprocessors).min(HOPPER_BLOCKS), 1, 1]
        },
    )
};

/// Kernel descriptor.
pub static INFO: KernelInfo = KernelInfo {
    name: "sae_screen_bf16",
    slots: &[
        Slot::read("x", DType::BF16),
        Slot::read("weight", DType::BF16),
        Slot::read("bias", DType::F32),
        Slot::write("indices", DType::U32),
        Slot::write("values", DType::F32),
    ],
    fields: fields![Params; rows, width, features, k, first_feature],
    params_size: size_of::<Params>(),
    wgsl: &[Wgsl::new(include_str!("sae_screen.wgsl"), "sae_screen_bf16", [256, 1, 1], |params| {
        let p: Params = bytemuck::pod_read_unaligned(params);
        fold_groups(p.rows.div_ceil(TILE).into())
    })],
    ptx: &[HOPPER, ptx(include_str!("sae_screen_bf16.ptx"), "sae_screen_bf16")],
    reference: reference::reference,
    cpu: Some(cpu::cpu),
    cases: cases::cases,
};

/// The largest pre-activations of each row, by products in bf16.
#[derive(Clone, Copy, Debug)]
pub struct SaeScreen {
    /// Features of a row: 1 to [`MOST_SCREENED`], at most as many as there are.
    pub k: usize,
}

impl SaeScreen {
    /// Plans indices u32 and values f32 `[rows, k]` from x bf16 `[rows, width]`, weight bf16 `[features, width]` and bias f32
    /// `[features]`.
    pub fn plan(&self, x: &TensorDesc, weight: &TensorDesc, bias: &TensorDesc) -> Result<Plan, ShapeError> {
        let op = INFO.name;
        let [rows, width, features] = sizes(op, DType::BF16, x, weight, bias)?;
        let most = MOST_SCREENED.min(features);
        if !(1..=most).contains(&self.k) {
            let expected = format!("1 to {most} (features of weight, at most {MOST_SCREENED})");
            return Err(ShapeError::value(op, "k", self.k, expected));
        }
        let k = self.k;
        ShapeError::size(op, "elements of x", x.elements())?;
        ShapeError::size(op, "elements of weight", weight.elements())?;
        ShapeError::size(op, "elements of indices", rows.saturating_mul(k))?;
        let params = Params {
            rows: ShapeError::size(op, "rows", rows)?,
            width: ShapeError::size(op, "width", width)?,
            features: ShapeError::size(op, "features", features)?,
            k: ShapeError::size(op, "k", k)?,
            first_feature: 0,
            span: ShapeError::size(op, "features", features)?,
            pad: [0; 2],
        };
        let (indices, values) = (TensorDesc::u32([rows, k]), TensorDesc::f32([rows, k]));
        let by_rows = Split {
            items: rows,
            count_at: std::mem::offset_of!(Params, rows),
            first_at: None,
            item_bytes: vec![2 * width, 0, 0, 4 * k, 4 * k],
        };
        let by_features = Split {
            items: features,
            count_at: std::mem::offset_of!(Params, features),
            first_at: Some(std::mem::offset_of!(Params, first_feature)),
            item_bytes: vec![0, 2 * width, 4, 0, 0],
        };
        Ok(Plan {
            kernel: &INFO,
            params: bytemuck::bytes_of(&params).to_vec(),
            cost: Cost {
                bytes: (x.bytes() + weight.bytes() + bias.bytes() + indices.bytes() + values.bytes()) as u64,
                flops: 2 * (rows * weight.elements()) as u64,
            },
            splits: vec![by_rows, by_features],
            slots: vec![
                Some(x.clone()),
                Some(weight.clone()),
                Some(bias.clone()),
                Some(indices),
                Some(values),
            ],
        })
    }
}

impl Op for SaeScreen {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let &[Some(x), Some(weight), Some(bias)] = inputs else {
            return Err(ShapeError::value(INFO.name, "inputs", inputs.len(), "x, weight, bias"));
        };
        self.plan(x, weight, bias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PtxDevice;
    use bytemuck::Zeroable;

    #[test]
    fn refusals_name_the_argument() {
        let half = |shape: &[usize]| TensorDesc::new(DType::BF16, shape);
        let text = |k, x: TensorDesc, weight: &[usize], bias: usize| {
            let plan = SaeScreen { k }.plan(&x, &half(weight), &TensorDesc::f32([bias]));
            plan.expect_err("refused").to_string()
        };
        assert_eq!(
            text(2, TensorDesc::f32([3, 5]), &[7, 5], 7),
            "sae_screen_bf16: `x` has type and shape F32 [3, 5], expected BF16 [rows, width] with a column or more"
        );
        assert_eq!(
            text(2, half(&[3, 5]), &[5, 7], 7),
            "sae_screen_bf16: `weight` has type and shape BF16 [5, 7], expected BF16 [features, 5] (last axis of x)"
        );
        assert_eq!(
            text(2, half(&[3, 5]), &[7, 5], 5),
            "sae_screen_bf16: `bias` has type and shape F32 [5], expected F32 [7] (first axis of weight)"
        );
        for k in [0, 8] {
            assert_eq!(
                text(k, half(&[3, 5]), &[7, 5], 7),
                format!(
                    "sae_screen_bf16: `k` has value {k}, expected 1 to 7 (features of weight, at most 1536)"
                )
            );
        }
        let op: &dyn Op = &SaeScreen { k: 4 };
        assert_eq!(
            op.plan(&[]).expect_err("refused").to_string(),
            "sae_screen_bf16: `inputs` has value 0, expected x, weight, bias"
        );
    }

    #[test]
    fn the_form_follows_the_device_and_the_width() {
        let hopper = PtxDevice { capability: (9, 0), multiprocessors: 132, shared_per_block: 227 << 10 };
        let form = |width, device: &PtxDevice| {
            let [x, weight] = [[300, width], [500, width]].map(|shape| TensorDesc::new(DType::BF16, shape));
            let plan = SaeScreen { k: 9 }.plan(&x, &weight, &TensorDesc::f32([500])).expect("shapes fit");
            INFO.ptx_for(&plan.params, device).expect("a form for every launch").entry
        };
        assert_eq!(form(1024, &hopper), "sae_screen_bf16_sm90a");
        assert_eq!(form(1020, &hopper), "sae_screen_bf16");
        for capability in [(8, 0), (8, 9), (10, 0)] {
            assert_eq!(form(1024, &PtxDevice { capability, ..hopper }), "sae_screen_bf16");
        }
    }

    #[test]
    fn lists_are_of_few_sizes() {
        let bytes = |rows| hopper_workspace(bytemuck::bytes_of(&Params { rows, k: 141, ..Params::zeroed() }));
        // 600 candidates a row
        assert_eq!(bytes(1), 128 * 600 * 8);
        assert_eq!(bytes(300), 4 * bytes(1));
        assert_eq!(bytes(65 * 128), 128 * bytes(1));
        assert_eq!([bytes(129 * 128), bytes(65_536), bytes(u32::MAX)], [132 * bytes(1); 3]);
    }

    #[test]
    fn no_k_of_the_encoder_asks_for_more_than_are_found() {
        assert_eq!(screened(100, 32_768), 141);
        assert_eq!(screened(100, 120), 120);
        assert!(screened(super::super::sae_encode::MOST_K, usize::MAX) <= MOST_SCREENED);
    }
}
