//! A capture of a value that was made together with its rounded copy is that copy, exactly where it may be.

use auscult_kernels::ops::{linear::Activation, linear_half_capture::LinearHalfCapture, scale::Scale};
use auscult_kernels::{Cost, DType, KernelInfo, Op, Plan, ShapeError, Slot, TensorDesc};
use auscult_runtime::{CpuBackend, Edit, Edits, Graph, GraphBuilder, Insert, Operand, Place, Program, Step};
use half::{bf16, f16};
use std::sync::Arc;

const ROWS: usize = 3;

/// `x = -x`, in place.
static NEGATE: KernelInfo = KernelInfo {
    name: "negate_f32",
    slots: &[Slot::update("x", DType::F32)],
    fields: &[],
    params_size: 0,
    wgsl: &[],
    ptx: &[],
    reference: |_, slots| slots[0].write::<f32>().iter_mut().for_each(|x| *x = -*x),
    cpu: None,
    cases: Vec::new,
};

#[derive(Debug)]
struct Negate;

impl Op for Negate {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(x)] = inputs else { panic!("x") };
        let slots = vec![Some((*x).clone())];
        Ok(Plan { kernel: &NEGATE, params: vec![], slots, cost: Cost::default(), splits: vec![] })
    }
}

/// y = x weight^T, kept in f16 too, at a site `y`; a kept row if `select`; what goes on behind the site as output `behind`.
fn graph(edits: Edits, select: bool) -> Graph {
    let mut g = GraphBuilder::new(edits);
    let x = g.input("x", TensorDesc::new(DType::F16, [ROWS, 2])).unwrap();
    let weight = g.input("weight", TensorDesc::new(DType::F16, [1, 2])).unwrap();
    let kept = g.input("rows", TensorDesc::u32([1])).unwrap();
    g.keep_rows(select.then_some(kept));
    let op = LinearHalfCapture { activation: Activation::None };
    let y = g.op_with_rounded(&op, &[Some(x), Some(weight), None, None]).unwrap();
    let y = g.site("y", y).unwrap();
    let y = g.site("z", y).unwrap();
    let behind = g.op(&Scale { factor: 1.0 }, &[Some(y)]).unwrap();
    g.output("behind", behind).unwrap();
    g.finish().unwrap()
}

fn captures(graph: &Graph) -> Vec<&'static str> {
    let name = |step: &Step| match step {
        Step::Dispatch { plan, .. } => Some(plan.kernel.name),
        Step::Site { .. } => None,
    };
    graph.steps().iter().filter_map(name).filter(|name| name.starts_with("capture")).collect()
}

fn run(graph: Graph) -> Program {
    let program = Program::new(Arc::new(CpuBackend::new(None).unwrap()), graph).unwrap();
    let halves =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|&v| f16::from_f32(v).to_ne_bytes()).collect() };
    // products 2049, 3 and -4098, of which f16 holds the second
    let x = halves(&[2048.0, 1.0, 2.0, 1.0, -4096.0, -2.0]);
    let weight = halves(&[1.0, 1.0]);
    program.run(&[("x", &x), ("weight", &weight), ("rows", &2_u32.to_ne_bytes())]).unwrap();
    program
}

fn f16s(program: &Program, output: &str) -> Vec<f32> {
    let bytes = program.output(output).unwrap();
    bytes.chunks_exact(2).map(|b| f16::from_ne_bytes([b[0], b[1]]).to_f32()).collect()
}

fn edits(captures: &[(&str, DType)]) -> Edits {
    let mut edits = Edits::new();
    for &(into, dtype) in captures {
        edits.push("y", Edit::Capture { into: into.into(), dtype });
    }
    edits
}

#[test]
fn captures_in_the_type_of_the_copy_are_the_copy() {
    let graph = graph(edits(&[("one", DType::F16), ("two", DType::F16)]), false);
    assert!(captures(&graph).is_empty(), "{graph}");
    let program = run(graph);
    for output in ["one", "two"] {
        assert_eq!(f16s(&program, output), [2048.0, 3.0, -4098.0_f32].map(|v| f16::from_f32(v).to_f32()));
    }
    assert_eq!(program.output_f32("behind").unwrap(), [2049.0, 3.0, -4098.0]);
}

#[test]
fn captures_in_other_types_are_launches() {
    let graph = graph(edits(&[("wide", DType::F32), ("other", DType::BF16), ("copy", DType::F16)]), false);
    assert_eq!(captures(&graph), ["capture_f32", "capture_bf16"]);
    let program = run(graph);
    assert_eq!(program.output_f32("wide").unwrap(), [2049.0, 3.0, -4098.0]);
    let want: Vec<u8> =
        [2049.0, 3.0, -4098.0].iter().flat_map(|&v| bf16::from_f32(v).to_ne_bytes()).collect();
    assert_eq!(program.output("other").unwrap(), want);
    assert_eq!(f16s(&program, "copy"), [2048.0, 3.0, f16::from_f32(-4098.0).to_f32()]);
}

#[test]
fn captures_of_selected_rows_are_launches() {
    let graph = graph(edits(&[("row", DType::F16)]), true);
    assert_eq!(captures(&graph), ["capture_f16"]);
    assert_eq!(f16s(&run(graph), "row"), [f16::from_f32(-4098.0).to_f32()]);
}

#[test]
fn the_copy_is_of_the_value_before_inserts() {
    let mut edits = edits(&[("before", DType::F16)]);
    edits.insert("y", vec![Insert::unary(Scale { factor: 2.0 })]);
    let graph = graph(edits, false);
    assert!(captures(&graph).is_empty(), "{graph}");
    let program = run(graph);
    assert_eq!(f16s(&program, "before")[1], 3.0);
    assert_eq!(program.output_f32("behind").unwrap(), [4098.0, 6.0, -8196.0]);
}

#[test]
fn a_value_that_was_updated_in_place_has_a_copy_no_more() {
    let mut edits = edits(&[("before", DType::F16)]);
    let negate = Insert { op: Arc::new(Negate), inputs: vec![Operand::Site], place: Place::Within };
    edits.insert("y", vec![negate]).capture("z", DType::F16);
    let graph = graph(edits, false);
    assert_eq!(captures(&graph), ["capture_f16"]);
    let program = run(graph);
    assert_eq!(f16s(&program, "before")[..2], [2048.0, 3.0]);
    assert_eq!(f16s(&program, "z")[..2], [-2048.0, -3.0]);
    assert_eq!(program.output_f32("behind").unwrap(), [-2049.0, -3.0, 4098.0]);
}

#[test]
fn sites_that_show_the_same_value_share_the_copy() {
    let mut edits = edits(&[("first", DType::F16)]);
    edits.capture("z", DType::F16);
    let graph = graph(edits, false);
    assert!(captures(&graph).is_empty(), "{graph}");
    let program = run(graph);
    assert_eq!(f16s(&program, "first"), f16s(&program, "z"));
}

#[test]
fn whether_all_rows_are_captured_is_told_by_type_and_site() {
    let mut edits = edits(&[("one", DType::F16), ("two", DType::F32)]);
    edits.insert("z", vec![Insert::unary(Scale { factor: 2.0 })]);
    let mut g = GraphBuilder::new(edits);
    for (site, dtype, all) in [
        ("y", DType::F16, true),
        ("y", DType::F32, true),
        ("y", DType::BF16, false),
        ("z", DType::F16, false),
        ("x", DType::F16, false),
    ] {
        assert_eq!(g.captures_all(site, dtype), all, "{site} {dtype}");
    }
    let rows = g.input("rows", TensorDesc::u32([1])).unwrap();
    g.keep_rows(Some(rows));
    assert!(!g.captures_all("y", DType::F16));
}
