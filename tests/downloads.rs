//! Downloads that are started and finished later, on every executor: they bring what was there when they were started.

mod common;

use auscult_kernels::ops::scale::Scale;
use auscult_kernels::{TensorDesc, noise};
use auscult_runtime::weights::HostBytes;
use auscult_runtime::{Backend, Buffer, Contents, CpuBackend, Edits, GraphBuilder, Program};
use common::executors::{Check, Executor, on_every_executor};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

const CHECKS: &[Check] = &[
    ("bytes are those of the start", bytes_of_the_start),
    ("long ones go in parts", long_ones),
    ("memory that is given back keeps them", given_back),
    ("many are finished in any order, or not at all", in_any_order),
    ("others launch while one waits", beside_launches),
    ("an output outlives the next run", outputs),
    ("a wait leaves them to be finished", waited_for),
    ("memory of another device is refused", of_another_device),
];

/// Values that the devices here bring in more than one way: by themselves, and beside what is launched.
const LENGTHS: [usize; 2] = [1000, (3 << 20) / 4 + 7];

fn main() -> ExitCode {
    on_every_executor(CHECKS)
}

fn values(name: &str, count: usize) -> Vec<f32> {
    noise(name, count).collect()
}

fn buffer(backend: &dyn Backend, values: &[f32]) -> Buffer {
    backend.alloc(Contents::Host(HostBytes::from_f32s(values.to_vec()))).unwrap()
}

/// Launches `to = factor * from`.
fn scale(backend: &dyn Backend, from: &Buffer, factor: f32, to: &Buffer) {
    let plan = Scale { factor }.plan(&TensorDesc::f32([from.bytes() / 4])).unwrap();
    backend.dispatch(&plan, &[Some(from.span()), Some(to.span())]).unwrap();
}

fn assert_scaled(bytes: &[u8], values: &[f32], factor: f32, what: &str) {
    let got: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
    assert_eq!(got.len(), values.len(), "{what}");
    let other = got.iter().zip(values).position(|(got, value)| *got != factor * value);
    assert_eq!(other, None, "{what}: the first value that differs, of {}", got.len());
}

/// A launch, an upload and a copy come after the start; at odd offsets too.
fn bytes_of_the_start(executor: &Executor) {
    let gpu = &*executor.backend;
    for length in LENGTHS {
        let x = values("x", length);
        let (from, other) = (buffer(gpu, &x), buffer(gpu, &values("other", length)));
        let y = gpu.alloc(Contents::Undefined(4 * length)).unwrap();
        scale(gpu, &from, 2.0, &y);
        let twice = gpu.start_download(&y.span()).unwrap();
        let part = gpu.start_download(&y.span().slice(5, 4 * length - 9).unwrap()).unwrap();
        scale(gpu, &from, 3.0, &y);
        let thrice = gpu.start_download(&y.span()).unwrap();
        gpu.copy(&other.span(), &y.span()).unwrap();
        let copied = gpu.start_download(&y.span()).unwrap();
        gpu.upload(&y.span(), &vec![7; 4 * length]).unwrap();
        let uploaded = gpu.start_download(&y.span()).unwrap();
        scale(gpu, &other, -1.0, &y);
        let twice = twice.finish().unwrap();
        assert_scaled(&twice, &x, 2.0, "before the second launch");
        assert!(part.finish().unwrap() == twice[5..4 * length - 4], "a part of it");
        assert_scaled(&thrice.finish().unwrap(), &x, 3.0, "before the copy");
        assert_scaled(&copied.finish().unwrap(), &values("other", length), 1.0, "before the upload");
        assert!(uploaded.finish().unwrap() == vec![7; 4 * length], "before the last launch");
        assert_scaled(&gpu.download(&y.span()).unwrap(), &values("other", length), -1.0, "at the end");
    }
    let none = gpu.alloc(Contents::Undefined(16)).unwrap().span().slice(3, 0).unwrap();
    assert_eq!(gpu.start_download(&none).unwrap().finish().unwrap().len(), 0);
}

/// More than the pinned parts of one download, and an odd end.
fn long_ones(executor: &Executor) {
    let gpu = &*executor.backend;
    let bytes: Vec<u8> = (0_u64..(70 << 20) + 3).map(|i| ((i * i) >> 7) as u8).collect();
    let long = gpu.alloc(Contents::Host(HostBytes::from_vec(bytes.clone()))).unwrap();
    let own = gpu.alloc(Contents::Undefined(bytes.len())).unwrap();
    gpu.copy(&long.span(), &own.span()).unwrap();
    let first = gpu.start_download(&own.span()).unwrap();
    let flipped: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
    gpu.upload(&own.span(), &flipped).unwrap();
    let second = gpu.start_download(&own.span()).unwrap();
    drop(own);
    assert!(first.finish().unwrap() == bytes, "the first");
    assert!(second.finish().unwrap() == flipped, "the second");
}

/// Whoever gets the memory next writes it at once.
fn given_back(executor: &Executor) {
    let gpu = &*executor.backend;
    for length in LENGTHS {
        let x = values("x", length);
        let from = buffer(gpu, &x);
        let mut started = Vec::new();
        for round in 1..=6_u8 {
            let y = gpu.alloc(Contents::Undefined(4 * length)).unwrap();
            scale(gpu, &from, round.into(), &y);
            started.push((round, gpu.start_download(&y.span()).unwrap()));
            drop(y);
            let next = gpu.alloc(Contents::Undefined(4 * length)).unwrap();
            match round % 2 {
                0 => scale(gpu, &from, -1.0, &next),
                _ => gpu.upload(&next.span(), &vec![9; 4 * length]).unwrap(),
            }
        }
        for (round, download) in started {
            let what = format!("round {round} of {length} values");
            assert_scaled(&download.finish().unwrap(), &x, round.into(), &what);
        }
    }
}

fn in_any_order(executor: &Executor) {
    let gpu = &*executor.backend;
    let x = values("x", LENGTHS[1]);
    let from = buffer(gpu, &x);
    let y = gpu.alloc(Contents::Undefined(4 * x.len())).unwrap();
    let mut started: Vec<_> = (1..=5_u8)
        .map(|factor| {
            scale(gpu, &from, factor.into(), &y);
            (factor, gpu.start_download(&y.span()).unwrap())
        })
        .collect();
    for at in [3, 0] {
        drop(started.remove(at));
    }
    for (factor, download) in started.into_iter().rev() {
        assert_scaled(&download.finish().unwrap(), &x, factor.into(), &format!("factor {factor}"));
    }
}

fn beside_launches(executor: &Executor) {
    let gpu = &*executor.backend;
    let rounds: u8 = if executor.is_slow() { 4 } else { 30 };
    let x = values("x", LENGTHS[1]);
    let from = buffer(gpu, &x);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let own = values("own", 333);
            let from = buffer(gpu, &own);
            let y = gpu.alloc(Contents::Undefined(4 * own.len())).unwrap();
            while !done.load(Ordering::Relaxed) {
                scale(gpu, &from, 5.0, &y);
                assert_scaled(&gpu.download(&y.span()).unwrap(), &own, 5.0, "the other thread");
            }
        });
        let y = gpu.alloc(Contents::Undefined(4 * x.len())).unwrap();
        let mut before = None;
        for round in 1..=rounds {
            scale(gpu, &from, f32::from(round), &y);
            let started = (round, gpu.start_download(&y.span()).unwrap());
            if let Some((round, download)) = before.replace(started) {
                assert_scaled(&download.finish().unwrap(), &x, f32::from(round), &format!("round {round}"));
            }
        }
        done.store(true, Ordering::Relaxed);
        let (round, last) = before.unwrap();
        assert_scaled(&last.finish().unwrap(), &x, f32::from(round), "the last round");
    });
}

fn outputs(executor: &Executor) {
    let length = LENGTHS[1];
    let mut g = GraphBuilder::new(Edits::new());
    let x = g.input("x", TensorDesc::f32([length])).unwrap();
    let twice = g.op(&Scale { factor: 2.0 }, &[Some(x)]).unwrap();
    let y = g.op(&Scale { factor: 2.0 }, &[Some(twice)]).unwrap();
    g.output("y", y).unwrap();
    let program = Program::new(executor.backend.clone(), g.finish().unwrap()).unwrap();
    // launches one by one, recorded, replayed
    let runs = ["first", "second", "third"].map(|name| {
        let x = values(name, length);
        program.run(&[("x", bytemuck::cast_slice(&x))]).unwrap();
        (x, program.start_output("y").unwrap())
    });
    drop(program);
    for (x, y) in runs {
        assert_scaled(&y.finish().unwrap(), &x, 4.0, "a run");
    }
}

fn waited_for(executor: &Executor) {
    let gpu = &*executor.backend;
    let x = values("x", LENGTHS[1]);
    let own = gpu.alloc(Contents::Undefined(4 * x.len())).unwrap();
    gpu.copy(&buffer(gpu, &x).span(), &own.span()).unwrap();
    let started = gpu.start_download(&own.span()).unwrap();
    gpu.wait().unwrap();
    gpu.upload(&own.span(), &vec![1; 4 * x.len()]).unwrap();
    gpu.wait().unwrap();
    assert_scaled(&started.finish().unwrap(), &x, 1.0, "after two waits");
}

fn of_another_device(executor: &Executor) {
    let other = CpuBackend::new(None).unwrap();
    let foreign = buffer(&other, &[1.0; 4]).span();
    match executor.backend.start_download(&foreign) {
        // the processor's memory is everybody's
        Ok(download) => assert_eq!((executor.name, download.finish().unwrap().len()), ("cpu", 16)),
        Err(error) => assert!(error.to_string().contains("another device"), "{error}"),
    }
}
