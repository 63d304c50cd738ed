//! Whole models of shapes alone: a device that keeps nothing and notes what it is asked to launch, and a checkpoint of the
//! right sizes with nothing in it.

use super::device::H200;
use super::job::Result;
use auscult_kernels::{DType, Plan};
use auscult_model::init::Preset;
use auscult_model::layout;
use auscult_runtime::{Backend, Buffer, Contents, DeviceError, DeviceInfo, Span};
use serde_json::{Map, json};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Notes launches.
pub struct Noting {
    info: DeviceInfo,
    launched: Mutex<Vec<Plan>>,
}

impl Noting {
    /// A device that chooses as an H200 does.
    pub fn new() -> Self {
        let info = DeviceInfo {
            id: "noting".into(),
            name: "launches of an H200, noted".into(),
            driver: String::new(),
            accelerator: true,
            max_binding: usize::MAX,
            binding_align: 256,
            ptx: Some(H200),
            wgsl: None,
        };
        Self { info, launched: Mutex::default() }
    }

    /// What was launched since the last call.
    pub fn take(&self) -> Vec<Plan> {
        std::mem::take(&mut self.launched.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Backend for Noting {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn alloc(&self, contents: Contents) -> std::result::Result<Buffer, DeviceError> {
        let bytes = match contents {
            Contents::Undefined(bytes) => bytes,
            Contents::Host(host) => host.len(),
        };
        Ok(Buffer::new((), bytes))
    }

    fn upload(&self, _: &Span, _: &[u8]) -> std::result::Result<(), DeviceError> {
        Ok(())
    }

    fn download(&self, from: &Span) -> std::result::Result<Vec<u8>, DeviceError> {
        Ok(vec![0; from.bytes])
    }

    fn copy(&self, _: &Span, _: &Span) -> std::result::Result<(), DeviceError> {
        Ok(())
    }

    fn dispatch(&self, plan: &Plan, _: &[Option<Span>]) -> std::result::Result<(), DeviceError> {
        self.launched.lock().unwrap_or_else(PoisonError::into_inner).push(plan.clone());
        Ok(())
    }

    fn wait(&self) -> std::result::Result<(), DeviceError> {
        Ok(())
    }
}

/// A checkpoint of musicgen-small's sizes below a folder, whose weights are a hole in a file.
///
/// # Errors
/// Those of files.
pub fn checkpoint(below: &Path) -> Result<PathBuf> {
    let dir = below.join("musicgen-small-of-zeros");
    std::fs::create_dir_all(&dir)?;
    let config = Preset::Small.config();
    let mut header = Map::new();
    let mut end = 0;
    for tensor in layout::musicgen(&config) {
        let begin = end;
        end += 4 * tensor.shape.iter().product::<usize>();
        let described = json!({ "dtype": "F32", "shape": tensor.shape, "data_offsets": [begin, end] });
        header.insert(tensor.name, described);
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = File::create(dir.join("model.safetensors"))?;
    file.write_all(&u64::try_from(header.len())?.to_le_bytes())?;
    file.write_all(&header)?;
    file.set_len(u64::try_from(8 + header.len() + end)?)?;
    std::fs::write(dir.join("config.json"), serde_json::to_vec_pretty(&config.to_json(DType::F32))?)?;
    Ok(dir)
}
