//! Ops that update what they are given: on constants, on values of steps, and at sites.

use auscult_kernels::ops::column_sums::ColumnSums;
use auscult_kernels::ops::scale::Scale;
use auscult_kernels::{Cost, DType, HostSlot, KernelInfo, Op, Plan, ShapeError, Slot, Split, TensorDesc};
use auscult_runtime::weights::HostBytes;
use auscult_runtime::{
    Backend, Contents, CpuBackend, Edits, Graph, GraphBuilder, GraphError, Insert, Operand, Place, Program,
    RunError, Tensor, Value,
};
use std::sync::Arc;

const fn kernel(
    name: &'static str,
    slots: &'static [Slot],
    reference: auscult_kernels::HostFn,
) -> KernelInfo {
    KernelInfo {
        name,
        slots,
        fields: &[],
        params_size: 0,
        wgsl: &[],
        ptx: &[],
        reference,
        cpu: None,
        cases: Vec::new,
    }
}

/// `x = 2 x + by`.
static GROW: KernelInfo = kernel(
    "grow_f32",
    &[Slot::read("by", DType::F32), Slot::update("x", DType::F32)],
    |_, slots: &mut [HostSlot<'_>]| {
        let [by, x] = slots else { panic!("two slots") };
        x.write::<f32>().iter_mut().zip(by.read::<f32>()).for_each(|(x, by)| *x = 2.0 * *x + by);
    },
);

/// `old = x, copy = -x, x = x + 1`, in slots that go to and fro.
static TAKE: KernelInfo = kernel(
    "take_f32",
    &[Slot::write("old", DType::F32), Slot::update("x", DType::F32), Slot::write("negative", DType::F32)],
    |_, slots: &mut [HostSlot<'_>]| {
        let [old, x, negative] = slots else { panic!("three slots") };
        let each = old.write::<f32>().iter_mut().zip(negative.write::<f32>()).zip(x.write::<f32>());
        each.for_each(|((old, negative), x)| (*old, *negative, *x) = (*x, -*x, *x + 1.0));
    },
);

fn plan(kernel: &'static KernelInfo, slots: &[&TensorDesc]) -> Plan {
    let slots: Vec<_> = slots.iter().map(|desc| Some((*desc).clone())).collect();
    Plan { kernel, params: vec![], slots, cost: Cost::default(), splits: Vec::<Split>::new() }
}

#[derive(Debug)]
struct Grow;

impl Op for Grow {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(by), Some(x)] = inputs else { panic!("by, x") };
        Ok(plan(&GROW, &[by, x]))
    }
}

#[derive(Debug)]
struct Take;

impl Op for Take {
    fn plan(&self, inputs: &[Option<&TensorDesc>]) -> Result<Plan, ShapeError> {
        let [Some(x)] = inputs else { panic!("x") };
        Ok(plan(&TAKE, &[x, x, x]))
    }
}

fn device() -> Arc<dyn Backend> {
    Arc::new(CpuBackend::new(None).unwrap())
}

/// Memory of its own, which may be written.
fn tensor(device: &dyn Backend, values: [f32; 3]) -> Tensor {
    let buffer = device.alloc(Contents::Undefined(12)).unwrap();
    device.upload(&buffer.span(), bytemuck::cast_slice(&values)).unwrap();
    Tensor { desc: TensorDesc::f32([3]), span: buffer.span() }
}

fn values(device: &dyn Backend, tensor: &Tensor) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(&device.download(&tensor.span).unwrap())
}

fn graph(
    edits: Edits,
    build: impl FnOnce(&mut GraphBuilder) -> Result<(), GraphError>,
) -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(edits);
    build(&mut g)?;
    g.finish()
}

fn scaled(g: &mut GraphBuilder, x: Value, factor: f32) -> Result<Value, GraphError> {
    g.op(&Scale { factor }, &[Some(x)])
}

#[test]
fn a_constant_keeps_its_state_from_replay_to_replay() {
    let device = device();
    let state = tensor(&*device, [1.0, 2.0, 3.0]);
    let graph = graph(Edits::new(), |g| {
        let by = g.input("by", TensorDesc::f32([3]))?;
        let state = g.constant(&state);
        let before = scaled(g, state, 10.0)?;
        let grown = g.op(&Grow, &[Some(by), Some(state)])?;
        assert_eq!(grown, state, "the value itself goes on");
        let after = scaled(g, state, 10.0)?;
        g.output("before", before)?;
        g.output("after", after)
    });
    let program = Program::new(device.clone(), graph.unwrap()).unwrap();
    let mut want = [1.0, 2.0, 3.0];
    for run in 0..4_u8 {
        let by = [f32::from(run), 0.5, -1.0];
        program.run(&[("by", bytemuck::cast_slice(&by))]).unwrap();
        assert_eq!(program.output_f32("before").unwrap(), want.map(|x| 10.0 * x), "run {run}");
        for (want, by) in want.iter_mut().zip(by) {
            *want = 2.0 * *want + by;
        }
        assert_eq!(program.output_f32("after").unwrap(), want.map(|x| 10.0 * x), "run {run}");
        assert_eq!(values(&*device, &state), want, "run {run}");
    }
}

#[test]
fn a_steps_value_stays_where_it_is_until_its_last_reader() {
    let device = device();
    let graph = graph(Edits::new(), |g| {
        let x = g.input("x", TensorDesc::f32([3]))?;
        let stream = scaled(g, x, 1.0)?;
        let flat = g.view(stream, [3, 1])?;
        // several values of the same size come and go between an update and the next reader
        let mut by = scaled(g, x, 3.0)?;
        for _ in 0..4 {
            let flat_by = g.view(by, [3, 1])?;
            g.op(&Grow, &[Some(flat_by), Some(flat)])?;
            by = scaled(g, by, 1.0)?;
            by = scaled(g, by, 1.0)?;
        }
        let y = scaled(g, stream, 1.0)?;
        g.output("y", y)?;
        g.output("by", by)
    });
    let program = Program::new(device, graph.unwrap()).unwrap();
    for first in [1.0_f32, -7.0] {
        let x = [first, first + 1.0, 0.25];
        program.run(&[("x", bytemuck::cast_slice(&x))]).unwrap();
        // 16 x + (8 + 4 + 2 + 1) 3 x
        assert_eq!(program.output_f32("y").unwrap(), x.map(|x| 61.0 * x));
        assert_eq!(program.output_f32("by").unwrap(), x.map(|x| 3.0 * x));
    }
}

#[test]
fn an_output_shows_what_became_of_its_value() {
    let device = device();
    let graph = graph(Edits::new(), |g| {
        let x = g.input("x", TensorDesc::f32([3]))?;
        let y = scaled(g, x, 1.0)?;
        g.output("y", y)?;
        g.op(&Grow, &[Some(x), Some(y)]).map(drop)
    });
    let program = Program::new(device, graph.unwrap()).unwrap();
    program.run(&[("x", bytemuck::cast_slice(&[1.0_f32, 2.0, 3.0]))]).unwrap();
    assert_eq!(program.output_f32("y").unwrap(), [3.0, 6.0, 9.0]);
}

#[test]
fn what_is_only_written_is_the_result_before_what_is_updated() {
    let device = device();
    let graph = graph(Edits::new(), |g| {
        let x = g.input("x", TensorDesc::f32([3]))?;
        let x = scaled(g, x, 2.0)?;
        let old = g.op(&Take, &[Some(x)])?;
        assert_ne!(old, x);
        g.output("old", old)?;
        g.output("x", x)
    });
    let program = Program::new(device, graph.unwrap()).unwrap();
    program.run(&[("x", bytemuck::cast_slice(&[1.0_f32, 2.0, 3.0]))]).unwrap();
    assert_eq!(program.output_f32("old").unwrap(), [2.0, 4.0, 6.0], "the first of two");
    assert_eq!(program.output_f32("x").unwrap(), [3.0, 5.0, 7.0]);
}

/// `y = 10 site(x)`, `x` made by a step.
fn with_site(edits: Edits) -> Result<Graph, GraphError> {
    graph(edits, |g| {
        let x = g.input("x", TensorDesc::f32([3, 1]))?;
        let stream = scaled(g, x, 1.0)?;
        let stream = g.site("here", stream)?;
        let y = scaled(g, stream, 10.0)?;
        g.output("y", y)
    })
}

#[test]
fn a_capture_at_a_site_sees_the_value_before_it_is_updated_there() {
    let device = device();
    let by = tensor(&*device, [100.0, 0.0, -100.0]);
    let by = Tensor { desc: TensorDesc::f32([3, 1]), ..by };
    let grow = || Insert {
        op: Arc::new(Grow),
        inputs: vec![Operand::Tensor(by.clone()), Operand::Site],
        place: Place::Within,
    };
    let mut edits = Edits::new();
    // the order in which edits are named does not matter
    edits.insert("here", vec![grow(), grow()]).capture("here", DType::F32);
    edits.insert("here", vec![Insert::unary(Scale { factor: 0.5 }), grow()]);
    let program = Program::new(device.clone(), with_site(edits).unwrap()).unwrap();
    for run in 0..3_u8 {
        let x = [1.0, 2.0, 3.0].map(|x| x + f32::from(run));
        program.run(&[("x", bytemuck::cast_slice(&x))]).unwrap();
        assert_eq!(program.output_f32("here").unwrap(), x, "run {run}");
        let by = [100.0, 0.0, -100.0];
        let want: Vec<f32> =
            x.iter().zip(by).map(|(x, by)| 10.0 * (2.0 * (0.5 * (2.0 * (2.0 * x + by) + by)) + by)).collect();
        assert_eq!(program.output_f32("y").unwrap(), want, "run {run}");
    }
    assert_eq!(values(&*device, &by), [100.0, 0.0, -100.0]);
}

#[test]
fn an_insert_may_update_a_tensor_of_its_own() {
    let device = device();
    let state = tensor(&*device, [0.0, 1.0, 2.0]);
    let state = Tensor { desc: TensorDesc::f32([3, 1]), ..state };
    let mut edits = Edits::new();
    edits.insert(
        "here",
        vec![Insert {
            op: Arc::new(Grow),
            inputs: vec![Operand::Site, Operand::Tensor(state.clone())],
            place: Place::Within,
        }],
    );
    let program = Program::new(device.clone(), with_site(edits).unwrap()).unwrap();
    program.run(&[("x", bytemuck::cast_slice(&[5.0_f32, 6.0, 7.0]))]).unwrap();
    assert_eq!(values(&*device, &state), [5.0, 8.0, 11.0]);
    assert_eq!(program.output_f32("y").unwrap(), [50.0, 80.0, 110.0], "the tensor takes the site's place");
}

#[test]
fn what_stands_beside_a_site_leaves_the_stream_alone_and_serves_later_inserts() {
    let device = device();
    let state = tensor(&*device, [0.0, 1.0, 2.0]);
    let state = Tensor { desc: TensorDesc::f32([3, 1]), ..state };
    let beside = |op: Arc<dyn Op>, inputs| Insert { op, inputs, place: Place::Beside };
    let within = |inputs| Insert { op: Arc::new(Grow), inputs, place: Place::Within };
    let edits = |inserts| {
        let mut edits = Edits::new();
        edits.insert("here", inserts);
        edits
    };
    let inserts = vec![
        beside(Arc::new(Scale { factor: 3.0 }), vec![Operand::Site]),
        beside(Arc::new(Grow), vec![Operand::Site, Operand::Tensor(state.clone())]),
        within(vec![Operand::Beside(2), Operand::Site]),
    ];
    let program = Program::new(device.clone(), with_site(edits(inserts)).unwrap()).unwrap();
    program.run(&[("x", bytemuck::cast_slice(&[5.0_f32, 6.0, 7.0]))]).unwrap();
    assert_eq!(values(&*device, &state), [5.0, 8.0, 11.0], "the site's value as it stood");
    assert_eq!(program.output_f32("y").unwrap(), [250.0, 300.0, 350.0], "10 (2 x + 3 x)");
    for back in [0, 1, 2] {
        let refused = with_site(edits(vec![within(vec![Operand::Beside(back), Operand::Site])]));
        let said = format!(
            "site `here`: an inserted op reads what stands {back} inserts before it, where there is none"
        );
        assert_eq!(refused.expect_err("nothing is there").to_string(), said);
    }
}

#[test]
fn what_an_insert_writes_may_be_outputs_and_serve_later_inserts() {
    let device = device();
    let sums = |place| Insert {
        op: Arc::new(ColumnSums { groups: 1, skip: 0 }),
        inputs: vec![Operand::Site, Operand::Absent],
        place,
    };
    let names = |names: &[&str]| Place::Output(names.iter().map(|name| (*name).to_string()).collect());
    let again = |slot| Insert {
        op: Arc::new(Scale { factor: 2.0 }),
        inputs: vec![Operand::BesideSlot { back: 1, slot }],
        place: names(&["twice"]),
    };
    let edits = |inserts| {
        let mut edits = Edits::new();
        edits.insert("here", inserts);
        edits
    };
    let graph = with_site(edits(vec![sums(names(&["sum", "squares"])), again(1)])).unwrap();
    let program = Program::new(device, graph).unwrap();
    program.run(&[("x", bytemuck::cast_slice(&[5.0_f32, 6.0, 7.0]))]).unwrap();
    let output = |name| program.output_f32(name).unwrap();
    let squares = 25.0 + 36.0 + 49.0;
    assert_eq!((output("sum"), output("squares")), (vec![18.0], vec![squares]));
    assert_eq!(output("twice"), [2.0 * squares]);
    for (inserts, said) in [
        (
            vec![sums(names(&["sum"]))],
            "site `here`: an inserted op writes 2 slots, expected one for each of the names sum",
        ),
        (
            vec![sums(Place::Beside), again(2)],
            "site `here`: an inserted op reads what stands 1 inserts before it, where there is none",
        ),
        (vec![sums(names(&["y", "squares"]))], "graph: output `y` is there twice"),
    ] {
        assert_eq!(with_site(edits(inserts)).expect_err("refused").to_string(), said);
    }
}

#[test]
fn a_result_goes_where_it_is_told() {
    let device = device();
    let kept = tensor(&*device, [1.0, 2.0, 3.0]);
    // what one replay leaves is what the next one starts from
    let twice = graph(Edits::new(), |g| {
        let before = g.constant(&kept);
        let doubled = scaled(g, before, 2.0)?;
        g.op_into(&Scale { factor: -1.0 }, &[Some(doubled)], &kept)?;
        Ok(())
    });
    let program = Program::new(device.clone(), twice.unwrap()).unwrap();
    for want in [[-2.0, -4.0, -6.0], [4.0, 8.0, 12.0], [-8.0, -16.0, -24.0]] {
        program.replay().unwrap();
        assert_eq!(values(&*device, &kept), want);
    }
    let refused = graph(Edits::new(), |g| {
        let x = g.input("x", TensorDesc::f32([2]))?;
        g.op_into(&Scale { factor: 1.0 }, &[Some(x)], &kept).map(drop)
    });
    let said = "graph: scale_f32 yields F32 [2], which cannot go into a tensor of F32 [3]";
    assert_eq!(refused.expect_err("another shape").to_string(), said);
}

#[test]
fn a_constant_at_a_site_is_not_updated() {
    let device = device();
    let weight = tensor(&*device, [1.0, 2.0, 3.0]);
    let by = tensor(&*device, [1.0, 1.0, 1.0]);
    let mut edits = Edits::new();
    edits.insert(
        "here",
        vec![Insert {
            op: Arc::new(Grow),
            inputs: vec![Operand::Tensor(by), Operand::Site],
            place: Place::Within,
        }],
    );
    let refused = graph(edits, |g| {
        let weight = g.constant(&weight);
        let row = g.view(weight, [3])?;
        let row = g.site("here", row)?;
        g.output("y", row)
    });
    let said = refused.expect_err("every later run would see it").to_string();
    assert_eq!(said, "site `here`: grow_f32 updates its value in place, but a constant stands there");
}

#[test]
fn a_value_is_not_read_where_it_is_updated() {
    let device = device();
    let graph = graph(Edits::new(), |g| {
        let x = g.input("x", TensorDesc::f32([3]))?;
        let x = scaled(g, x, 1.0)?;
        let y = g.op(&Grow, &[Some(x), Some(x)])?;
        g.output("y", y)
    });
    let program = Program::new(device, graph.unwrap()).unwrap();
    let refused = program.run(&[("x", &[0; 12])]).expect_err("one memory, read and written");
    assert!(matches!(refused, RunError::Device(_)), "{refused}");
    let said = "grow_f32: slot `x` is written, but its buffer is bound to another slot too";
    assert_eq!(refused.to_string(), said);
}

#[test]
fn mapped_weights_are_not_updated() {
    let device = device();
    let host = HostBytes::from_vec(bytemuck::cast_slice(&[1.0_f32, 2.0, 3.0]).to_vec());
    let mapped = device.alloc(Contents::Host(host)).unwrap();
    let mapped = Tensor { desc: TensorDesc::f32([3]), span: mapped.span() };
    let graph = graph(Edits::new(), |g| {
        let by = g.input("by", TensorDesc::f32([3]))?;
        let weight = g.constant(&mapped);
        let y = g.op(&Grow, &[Some(by), Some(weight)])?;
        g.output("y", y)
    });
    let program = Program::new(device, graph.unwrap()).unwrap();
    let refused = program.run(&[("by", &[0; 12])]).expect_err("what is shared is not written");
    assert!(refused.to_string().contains("mapped weights cannot be written"), "{refused}");
}
