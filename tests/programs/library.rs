//! Capture a site and edit another: `library CHECKPOINT AUDIO`.
use auscult_kernels::{DType, ops::scale::Scale};
use auscult_model::{encodec::Encodec, musicgen::Decoder};
use auscult_runtime::{Backend, CpuBackend, Edits, Insert};
use std::{path::Path, sync::Arc};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let backend: Arc<dyn Backend> = Arc::new(CpuBackend::new(None)?);
    let codec = Encodec::open(Path::new(&args[1]), backend.clone())?;
    let decoder = Decoder::open(Path::new(&args[1]), backend, &Default::default())?;

    let audio = auscult_audio::load(&args[2], codec.config().sampling_rate)?;
    let codes = codec.encode(&[&audio])?;

    let mut edits = Edits::new();
    edits.insert("layers.0.mlp_out", vec![Insert::unary(Scale { factor: 0.5 })]); // halve one block's output
    edits.capture("hook_layers.1", DType::F32); // the residual stream two layers on
    let forward = decoder.teacher_forced(1, codes[0].frames(), edits)?;
    forward.run(&codes)?;
    let resid = forward.output_f32("hook_layers.1")?; // [frames + 1, hidden], row after row
    println!("{} positions, first value {}", forward.positions(), resid[0]);
    Ok(())
}
