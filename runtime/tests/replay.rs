//! Programs on backends that record, and on backends with too little memory; and a measurement there.

use auscult_kernels::ops::scale::Scale;
use auscult_kernels::{Plan, TensorDesc};
use auscult_runtime::selftest::copy_rate;
use auscult_runtime::{
    Backend, Buffer, Contents, CpuBackend, DeviceError, DeviceInfo, Edits, GraphBuilder, Launch, Program,
    Recording, RunError, Span,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The processor, with what a device may have besides: recordings, and an end of its memory.
struct Device {
    inner: Arc<CpuBackend>,
    records: bool,
    /// Bytes there are, and those that can still be had; who is refused gives back what was taken.
    total: usize,
    free: Mutex<usize>,
    dispatched: AtomicUsize,
    replayed: Arc<AtomicUsize>,
}

impl Device {
    fn new(records: bool, free: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::new(CpuBackend::new(None).unwrap()),
            records,
            total: free,
            free: Mutex::new(free),
            dispatched: AtomicUsize::new(0),
            replayed: Arc::default(),
        })
    }

    fn counts(&self) -> (usize, usize) {
        (self.dispatched.load(Ordering::Relaxed), self.replayed.load(Ordering::Relaxed))
    }
}

impl Backend for Device {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    fn alloc(&self, contents: Contents) -> Result<Buffer, DeviceError> {
        if let Contents::Undefined(bytes) = contents {
            let mut free = self.free.lock().unwrap();
            let Some(left) = free.checked_sub(bytes) else {
                let detail = format!("; {free} of 100000 bytes are free");
                let had = std::mem::replace(&mut *free, self.total);
                return Err(DeviceError::OutOfMemory {
                    device: "small".into(),
                    asked: bytes,
                    free: Some(had),
                    detail,
                });
            };
            *free = left;
        }
        self.inner.alloc(contents)
    }

    fn upload(&self, to: &Span, bytes: &[u8]) -> Result<(), DeviceError> {
        self.inner.upload(to, bytes)
    }

    fn download(&self, from: &Span) -> Result<Vec<u8>, DeviceError> {
        self.inner.download(from)
    }

    fn copy(&self, from: &Span, to: &Span) -> Result<(), DeviceError> {
        self.inner.copy(from, to)
    }

    fn dispatch(&self, plan: &Plan, slots: &[Option<Span>]) -> Result<(), DeviceError> {
        self.dispatched.fetch_add(1, Ordering::Relaxed);
        self.inner.dispatch(plan, slots)
    }

    fn wait(&self) -> Result<(), DeviceError> {
        self.inner.wait()
    }

    fn record(&self, launches: &[Launch<'_>]) -> Result<Option<Box<dyn Recording>>, DeviceError> {
        let launches = launches.iter().map(|(plan, slots)| ((*plan).clone(), slots.clone())).collect();
        let recorded = Recorded { inner: self.inner.clone(), launches, replayed: Arc::clone(&self.replayed) };
        Ok(self.records.then(|| Box::new(recorded) as Box<dyn Recording>))
    }
}

struct Recorded {
    inner: Arc<CpuBackend>,
    launches: Vec<(Plan, Vec<Option<Span>>)>,
    replayed: Arc<AtomicUsize>,
}

impl Recording for Recorded {
    fn replay(&self) -> Result<(), DeviceError> {
        self.replayed.fetch_add(1, Ordering::Relaxed);
        self.launches.iter().try_for_each(|(plan, slots)| self.inner.dispatch(plan, slots))
    }
}

/// `y = 3 (2 x)`, three values of 28 bytes in two buffers or more.
fn program(device: &Arc<Device>) -> Result<Program, DeviceError> {
    let mut g = GraphBuilder::new(Edits::new());
    let x = g.input("x", TensorDesc::f32([7])).unwrap();
    let twice = g.op(&Scale { factor: 2.0 }, &[Some(x)]).unwrap();
    let y = g.op(&Scale { factor: 3.0 }, &[Some(twice)]).unwrap();
    g.output("y", y).unwrap();
    Program::new(device.clone(), g.finish().unwrap())
}

fn run(program: &Program, first: f32) -> Result<(), RunError> {
    let x: Vec<f32> = (0..7_u8).map(|i| first + f32::from(i)).collect();
    program.run(&[("x", bytemuck::cast_slice(&x))])?;
    let want: Vec<f32> = x.iter().map(|x| 6.0 * x).collect();
    assert_eq!(program.output_f32("y")?, want, "first element {first}");
    Ok(())
}

#[test]
fn the_second_run_records_and_later_ones_replay() {
    let device = Device::new(true, usize::MAX);
    let program = program(&device).unwrap();
    run(&program, 1.0).unwrap();
    assert_eq!(device.counts(), (2, 0), "the first run makes launches");
    for i in 1..4_u8 {
        run(&program, 10.0 * f32::from(i)).unwrap();
        assert_eq!(device.counts(), (2, usize::from(i)), "no more launches are made");
    }
}

#[test]
fn a_device_that_does_not_record_is_asked_once_and_launches_on() {
    let device = Device::new(false, usize::MAX);
    let program = program(&device).unwrap();
    for i in 1..5_u8 {
        run(&program, f32::from(i)).unwrap();
        assert_eq!(device.counts(), (2 * usize::from(i), 0));
    }
}

#[test]
fn memory_that_is_missing_is_told_for_the_whole_program() {
    let fits = Device::new(false, usize::MAX);
    let whole = program(&fits).unwrap().arena_bytes();
    assert!(whole > 28, "several buffers");
    let Err(error) = program(&Device::new(false, whole - 1)) else { panic!("it cannot fit") };
    let DeviceError::OutOfMemory { asked, free, .. } = &error else { panic!("{error}") };
    assert_eq!((*asked, *free), (whole, Some(whole - 1)), "what was had by then counts as free");
    let text = format!("small: {whole} bytes of memory could not be allocated; ");
    assert!(error.to_string().starts_with(&text), "{error}");
}

#[test]
fn a_copy_is_measured_over_what_memory_there_is() {
    let rate = copy_rate(&*Device::new(false, 120 << 20)).unwrap();
    assert!(rate.is_finite() && rate > 1e6, "{rate} bytes a second");
    let error = copy_rate(&*Device::new(false, 1 << 20)).expect_err("too little");
    assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
}
