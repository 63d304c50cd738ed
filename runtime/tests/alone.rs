//! What becomes of a sequence does not depend on the batch it travels in: bit for bit, in every PTX form.

use auscult_kernels::ops::conv_transpose1d::ConvTranspose1d;
use auscult_kernels::ops::conv1d::{Activation, Conv1d, PadMode};
use auscult_kernels::ops::lstm::Lstm;
use auscult_kernels::{Op, Plan, TensorDesc, noise};
use auscult_runtime::weights::HostBytes;
use auscult_runtime::{Backend, Contents, PtxSim, Span};

/// Shapes of the inputs: whether the first axis is the batch, and the axes behind it.
type Inputs = [(bool, &'static [usize])];

fn plan(op: &dyn Op, inputs: &Inputs, batch: usize) -> Plan {
    let desc = |&(batched, rest): &(bool, &[usize])| {
        let mut shape = rest.to_vec();
        if batched {
            shape.insert(0, batch);
        }
        TensorDesc::f32(shape)
    };
    let inputs: Vec<TensorDesc> = inputs.iter().map(desc).collect();
    op.plan(&inputs.iter().map(Some).collect::<Vec<_>>()).unwrap()
}

/// Runs sequences all together, a few together and each alone, and compares the bits of what they become.
fn same_in_any_company(op: &dyn Op, inputs: &Inputs, batch: usize, few: usize) {
    let whole = plan(op, inputs, batch);
    let takes = whole.kernel.ptx.iter().filter(|ptx| (ptx.takes)(&whole.params));
    let forms: Vec<&str> = takes.map(|ptx| ptx.entry).collect();
    assert!(!forms.is_empty(), "{} has no form", whole.kernel.name);
    for form in forms {
        let sim = PtxSim::new().unwrap().only(form);
        let values: Vec<Vec<f32>> = (whole.slots.iter().flatten().enumerate())
            .map(|(slot, desc)| noise(&format!("{form}/{slot}"), desc.elements()).collect())
            .collect();
        // sequences first .. first + count
        let run = |first: usize, count: usize| {
            let part = plan(op, inputs, count);
            let buffer = |(slot, desc): (usize, &Option<TensorDesc>)| {
                let elements = desc.as_ref()?.elements();
                let contents = match inputs.get(slot) {
                    None => Contents::Undefined(4 * elements),
                    Some((batched, _)) => {
                        let at = if *batched { first * elements / count } else { 0 };
                        let bytes = bytemuck::cast_slice(&values[slot][at..at + elements]).to_vec();
                        Contents::Host(HostBytes::from_vec(bytes))
                    }
                };
                Some(sim.alloc(contents).unwrap().span())
            };
            let spans: Vec<Option<Span>> = part.slots.iter().enumerate().map(buffer).collect();
            sim.dispatch(&part, &spans).unwrap();
            sim.download(spans.last().unwrap().as_ref().unwrap()).unwrap()
        };
        let together = run(0, batch);
        let item = together.len() / batch;
        for (first, count) in (0..batch).map(|first| (first, 1)).chain([(1, few)]) {
            let bytes = first * item..(first + count) * item;
            assert!(run(first, count) == together[bytes], "{form}: sequences {first} and {count} on");
        }
    }
}

#[test]
fn conv1d() {
    let op = Conv1d {
        stride: 2,
        pad_left: 2,
        pad_right: 3,
        pad: PadMode::Reflect,
        input_activation: Activation::Elu,
        ..Conv1d::default()
    };
    same_in_any_company(
        &op,
        &[(true, &[79, 16]), (false, &[40, 5, 16]), (false, &[40]), (true, &[40, 40])],
        7,
        4,
    );
    let close = Conv1d { stride: 1, ..op };
    same_in_any_company(
        &close,
        &[(true, &[79, 16]), (false, &[3, 5, 16]), (false, &[3]), (true, &[80, 3])],
        7,
        4,
    );
    same_in_any_company(&op, &[(true, &[79, 7]), (false, &[9, 5, 7]), (false, &[9]), (true, &[40, 9])], 7, 4);
}

#[test]
fn conv_transpose1d() {
    let op = ConvTranspose1d {
        stride: 5,
        kernel: 10,
        trim_left: 3,
        trim_right: 2,
        input_activation: Activation::Elu,
        output_activation: Activation::None,
    };
    same_in_any_company(&op, &[(true, &[19, 16]), (false, &[40, 2, 16]), (false, &[8])], 7, 4);
    same_in_any_company(&op, &[(true, &[19, 7]), (false, &[40, 2, 7]), (false, &[8])], 7, 4);
}

#[test]
fn lstm() {
    // alone in the path for at most 8 sequences, together in the one for 64, and two sequences past that
    let inputs: &Inputs = &[(true, &[3, 288]), (false, &[288, 72]), (true, &[3, 72])];
    same_in_any_company(&Lstm, inputs, 66, 33);
    same_in_any_company(&Lstm, &[(true, &[3, 20]), (false, &[20, 5]), (true, &[3, 5])], 66, 33);
}
