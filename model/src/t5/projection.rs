//! The layer from text states to the decoder's width: `enc_to_dec_proj`.

use super::states::TextStates;
use super::weights::upload;
use crate::config::{CONFIG_FILE, CheckpointConfig};
use crate::error::{ModelError, Result};
use crate::programs::{Programs, Shared};
use auscult_kernels::TensorDesc;
use auscult_kernels::ops::linear::{Activation, Linear};
use auscult_runtime::weights::{Loader, Weights};
use auscult_runtime::{Backend, Edits, GraphBuilder, Program, Tensor};
use std::path::Path;
use std::sync::Arc;

const STATES: &str = "states";
const PROJECTED: &str = "projected";

/// Rows are padded to a multiple of this, for the reasons that prompts are.
const STEP: usize = 8;

/// Rows of one pass; more are projected in several, which changes no bit.
const PASS_ROWS: usize = 1024;

/// `y = states * weight^T + bias`, or the states themselves where text and decoder are equally wide.
pub struct TextProjection {
    text_width: usize,
    width: usize,
    layer: Option<Layer>,
    backend: Arc<dyn Backend>,
    /// By padded rows.
    programs: Programs<usize>,
}

struct Layer {
    /// f32 `[width, text_width]`.
    weight: Tensor,
    /// f32 `[width]`.
    bias: Tensor,
}

impl TextProjection {
    /// Opens the projection of a MusicGen checkpoint.
    ///
    /// # Errors
    /// A configuration without one; weights that disagree with it; memory.
    pub fn open(dir: &Path, backend: Arc<dyn Backend>) -> Result<Self> {
        let config = match CheckpointConfig::load(dir)? {
            CheckpointConfig::Musicgen(config) | CheckpointConfig::MusicgenMelody(config) => config,
            CheckpointConfig::Encodec(_) => {
                let (file, expected) = (dir.join(CONFIG_FILE), "\"musicgen\", which reads text");
                return Err(ModelError::config(&file, "model_type", "\"encodec\"", expected));
            }
        };
        let (text_width, width) = (config.text_encoder.d_model, config.decoder.hidden_size);
        let checkpoint = Weights::open(dir)?;
        let loader = Loader::new(&checkpoint).prefix("enc_to_dec_proj.");
        let views = config
            .has_text_projection()
            .then(|| (loader.take("weight", &[width, text_width]), loader.take("bias", &[width])));
        loader.finish()?;
        let layer = match views {
            Some((weight, bias)) => {
                Some(Layer { weight: upload(&weight, &*backend)?, bias: upload(&bias, &*backend)? })
            }
            None => None,
        };
        Ok(Self { text_width, width, layer, backend, programs: Programs::new() })
    }

    /// Width of what goes in.
    pub fn text_width(&self) -> usize {
        self.text_width
    }

    /// Width of what comes out: the decoder's.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The states of every text at the decoder's width, computed on the device. A row does not depend on the others.
    ///
    /// # Errors
    /// States of another width; failures of the device.
    pub fn project(&self, texts: &[TextStates]) -> Result<Vec<TextStates>> {
        if let Some(other) = texts.iter().find(|states| states.width() != self.text_width) {
            let (found, expected) = (other.width(), self.text_width);
            return Err(ModelError::Text(format!("states of width {found}, expected {expected}")));
        }
        let Some(layer) = &self.layer else { return Ok(texts.to_vec()) };
        let all: Vec<f32> = texts.iter().flat_map(|states| states.values()).copied().collect();
        let mut projected = Vec::with_capacity(all.len() / self.text_width * self.width);
        for pass in all.chunks(PASS_ROWS * self.text_width) {
            projected.extend(self.pass(layer, pass)?);
        }
        let mut rest = projected.as_slice();
        let split = |states: &TextStates| {
            let (own, after) = rest.split_at(states.tokens() * self.width);
            rest = after;
            TextStates::new(self.width, own.to_vec())
        };
        texts.iter().map(split).collect()
    }

    /// Which kernel projects so many rows, and how it is launched: behind a line for each pass, its launch. Empty where text
    /// and decoder are equally wide.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn explain(&self, rows: usize) -> Result<String> {
        let Some(layer) = &self.layer else { return Ok(String::new()) };
        let one = |first: usize| {
            let rows = PASS_ROWS.min(rows - first).next_multiple_of(STEP);
            let program = self.program(layer, rows)?;
            let launches = auscult_runtime::explain(program.lock().graph(), self.backend.info());
            Ok(format!("its projection over {rows} rows:\n{launches}"))
        };
        (0..rows).step_by(PASS_ROWS).map(one).collect()
    }

    /// The program that projects so many rows.
    fn program(&self, layer: &Layer, rows: usize) -> Result<Shared> {
        self.programs.get(rows, || {
            let mut g = GraphBuilder::new(Edits::new());
            let x = g.input(STATES, TensorDesc::f32([rows, self.text_width]))?;
            let (weight, bias) = (g.constant(&layer.weight), g.constant(&layer.bias));
            let linear = Linear { activation: Activation::None };
            let y = g.op(&linear, &[Some(x), Some(weight), Some(bias), None])?;
            g.output(PROJECTED, y)?;
            Ok(Program::new(self.backend.clone(), g.finish()?)?)
        })
    }

    fn pass(&self, layer: &Layer, states: &[f32]) -> Result<Vec<f32>> {
        let own = states.len() / self.text_width;
        let rows = own.next_multiple_of(STEP);
        let program = self.program(layer, rows)?;
        let mut padded = states.to_vec();
        padded.resize(rows * self.text_width, 0.0);
        let program = program.lock();
        program.run(&[(STATES, bytemuck::cast_slice(&padded))])?;
        let mut projected = program.output_f32(PROJECTED)?;
        projected.truncate(own * self.width);
        Ok(projected)
    }
}
