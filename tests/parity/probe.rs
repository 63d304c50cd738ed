//! A kernel of the tests' own, simple enough to be known by heart.

use auscult_kernels::{
    Access, Cost, DType, Field, HostSlot, KernelInfo, Plan, Ptx, PtxDevice, Slot, TensorDesc, Wgsl, fields,
};
use bytemuck::{Pod, Zeroable};

/// Parameter block.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Params {
    /// Elements.
    pub n: u32,
    /// Added to each.
    pub add: u32,
    has_bias: u32,
    has_twin: u32,
}

const SLOTS: &[Slot] = &[
    Slot::read("x", DType::U32),
    Slot::maybe("bias", DType::U32),
    Slot::write("y", DType::U32),
    Slot { name: "twin", dtype: DType::U32, access: Access::Write, optional: true },
];

const FIELDS: &[Field] = fields![Params; n, add, has_bias, has_twin];

/// `y = 3 * x + add + bias`, and the same into `twin`; `bias` and `twin` may be left out.
pub static PROBE: KernelInfo = probe(&[wgsl(include_str!("probe.wgsl"))], &[form(include_str!("probe.ptx"))]);

/// The same, with sources that no compiler takes.
pub static BROKEN: KernelInfo =
    probe(&[wgsl("fn probe_u32( {")], &[form(".version 7.0\n.target sm_80\n.address_size 64\nnonsense;\n")]);

/// The same with a form that writes to address 16, which nothing may.
pub static STRAY: KernelInfo = probe(
    &[wgsl(include_str!("probe.wgsl"))],
    &[form(
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry probe_u32(.param .u64 x, .param .u64 bias, \
         .param .u64 y, .param .u64 twin, .param .align 4 .b8 params[16])\n{\n.reg .u64 at;\nmov.u64 at, 16;\n\
         st.global.u64 [at], at;\nret;\n}\n",
    )],
);

const fn form(source: &'static str) -> Ptx {
    Ptx::new(source, "probe_u32", [64, 1, 1], blocks)
}

const fn wgsl(source: &'static str) -> Wgsl {
    Wgsl::new(source, "probe_u32", [64, 1, 1], |params| {
        [bytemuck::pod_read_unaligned::<Params>(params).n.div_ceil(64), 1, 1]
    })
}

fn blocks(params: &[u8], _: &PtxDevice) -> [u32; 3] {
    [bytemuck::pod_read_unaligned::<Params>(params).n.div_ceil(64), 1, 1]
}

const fn probe(wgsl: &'static [Wgsl], ptx: &'static [Ptx]) -> KernelInfo {
    KernelInfo {
        name: "probe_u32",
        slots: SLOTS,
        fields: FIELDS,
        params_size: size_of::<Params>(),
        wgsl,
        ptx,
        reference,
        cpu: None,
        cases: Vec::new,
    }
}

fn reference(params: &[u8], slots: &mut [HostSlot<'_>]) {
    let params: Params = bytemuck::pod_read_unaligned(params);
    let [x, bias, y, twin] = slots else { panic!("four slots") };
    let bias = bias.read::<u32>();
    for (i, (y, x)) in y.write::<u32>().iter_mut().zip(x.read::<u32>()).enumerate() {
        *y = expected(*x, params.add, bias.get(i).copied().unwrap_or(0));
    }
    if params.has_twin != 0 {
        twin.write::<u32>().copy_from_slice(y.read());
    }
}

/// What one element becomes.
pub fn expected(x: u32, add: u32, bias: u32) -> u32 {
    x.wrapping_mul(3).wrapping_add(add).wrapping_add(bias)
}

/// Which of the optional slots a launch has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extras {
    None,
    Bias,
    Twin,
}

/// A launch over `n` elements.
pub fn plan(n: usize, add: u32, extras: Extras) -> Plan {
    let desc = TensorDesc::u32([n]);
    let with = |extra| (extras == extra).then(|| desc.clone());
    let params = Params {
        n: u32::try_from(n).expect("a small test"),
        add,
        has_bias: u32::from(extras == Extras::Bias),
        has_twin: u32::from(extras == Extras::Twin),
    };
    Plan {
        kernel: &PROBE,
        params: bytemuck::bytes_of(&params).to_vec(),
        slots: vec![Some(desc.clone()), with(Extras::Bias), Some(desc.clone()), with(Extras::Twin)],
        cost: Cost::default(),
        splits: vec![],
    }
}
