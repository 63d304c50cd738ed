//! The encoder of rows that lie on the host, on whatever device there is.

use super::{DeviceSae, HostEncoder, NotFinite, Sae, SaePrecision, SparseRows};
use crate::error::Result;
use auscult_kernels::TensorDesc;
use auscult_kernels::ops::sae_encode::PTX_ROWS;
use auscult_runtime::{Backend, DeviceInfo, Edits, GraphBuilder, Program};
use std::sync::Arc;

/// Rows that a device encodes at a time of which no more is known.
const BLOCK_ROWS: usize = 4096;
/// Blocks of the encoder that a multiprocessor has at a time.
pub(super) const BLOCKS: usize = 2;

/// An autoencoder with its encoder on a device, or on the host where the device is the host's processor or cannot express it.
/// Either way features are those of [`Sae::encode`].
pub struct Encoder<'a> {
    sae: &'a Sae,
    host: HostEncoder<'a>,
    device: Option<OnDevice>,
}

/// The encoder's tensors, and the program of the last number of rows.
struct OnDevice {
    backend: Arc<dyn Backend>,
    sae: DeviceSae,
    program: Option<(usize, Program)>,
}

/// Whether kernels run on something else than the host's own forms.
fn is_device(info: &DeviceInfo) -> bool {
    info.ptx.is_some() || info.wgsl.is_some()
}

impl<'a> Encoder<'a> {
    /// An encoder on a device, whose products are of `precision`.
    ///
    /// # Errors
    /// Those of [`Sae::host_encoder`]; the device.
    pub fn new(sae: &'a Sae, precision: SaePrecision, backend: &Arc<dyn Backend>) -> Result<Self> {
        if is_device(backend.info()) && sae.encodes_on(backend.info(), precision) {
            let on_device = sae.on_device(&**backend, precision)?;
            let device = Some(OnDevice { backend: backend.clone(), sae: on_device, program: None });
            // those that the host may take over have no form in bf16
            return Ok(Self { sae, host: sae.host_encoder(SaePrecision::F32)?, device });
        }
        Ok(Self { sae, host: sae.host_encoder(precision)?, device: None })
    }

    /// The autoencoder.
    pub fn sae(&self) -> &'a Sae {
        self.sae
    }

    /// Whether a device encodes.
    pub fn is_on_device(&self) -> bool {
        self.device.is_some()
    }

    /// Encodes rows `[rows, width]`, as [`Sae::encode`]. A row with more active features than a device can keep brings the
    /// encoder to the host, for good.
    ///
    /// # Errors
    /// Those of [`Sae::encode`]; the device.
    pub fn encode(&mut self, rows: &[f32]) -> Result<SparseRows> {
        self.encode_with(rows, NotFinite::Refuse)
    }

    /// As [`encode`](Self::encode), with a choice about rows that are not finite, or whose features are not.
    ///
    /// # Errors
    /// Those of [`Sae::encode_with`]; the device.
    pub fn encode_with(&mut self, rows: &[f32], not_finite: NotFinite) -> Result<SparseRows> {
        let Some(device) = &mut self.device else { return self.host.encode_with(rows, not_finite) };
        let (sae, host) = (self.sae, &self.host);
        let mut is_full = false;
        let codes = sae.encode_through(rows, not_finite, |rows| {
            let mut parts = Vec::new();
            for block in rows.chunks(device.block_rows() * sae.width()) {
                let Some(part) = device.encode(block)? else {
                    is_full = true;
                    return host.encode_with(rows, NotFinite::Mark);
                };
                parts.push(part);
            }
            Ok(SparseRows::joined(&parts, sae.k()))
        });
        if is_full {
            self.device = None;
        }
        codes
    }
}

impl OnDevice {
    /// Rows of a block at most: so many that every multiprocessor encodes.
    fn block_rows(&self) -> usize {
        let ptx = self.backend.info().ptx.as_ref();
        ptx.map_or(BLOCK_ROWS, |device| BLOCKS * (device.multiprocessors * PTX_ROWS) as usize)
    }

    /// Encodes a block; none where a row has more active features than there can be places.
    fn encode(&mut self, rows: &[f32]) -> Result<Option<SparseRows>> {
        loop {
            let (indices, values) = self.run(rows)?;
            if !self.sae.overflows(&values) {
                return Ok(Some(self.sae.sparse_rows(indices, values)));
            }
            let Some(wider) = self.sae.widened() else { return Ok(None) };
            self.sae = wider;
            self.program = None;
        }
    }

    fn run(&mut self, rows: &[f32]) -> Result<(Vec<u32>, Vec<f32>)> {
        let count = rows.len() / self.sae.width();
        let (_, program) = match self.program.take() {
            Some(made) if made.0 == count => self.program.insert(made),
            _ => {
                let made = self.program(count)?;
                self.program.insert((count, made))
            }
        };
        program.run(&[("rows", bytemuck::cast_slice(rows))])?;
        Ok((program.output_u32("indices")?, program.output_f32("values")?))
    }

    fn program(&self, count: usize) -> Result<Program> {
        let mut graph = GraphBuilder::new(Edits::new());
        let x = graph.input("rows", TensorDesc::f32([count, self.sae.width()]))?;
        let (indices, values) = self.sae.encode(&mut graph, x)?;
        graph.output("indices", indices)?;
        graph.output("values", values)?;
        Ok(Program::new(self.backend.clone(), graph.finish()?)?)
    }
}
