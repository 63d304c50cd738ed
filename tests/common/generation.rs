//! Stored outputs of text, prefixes and generation: `generation.json` and `generation.safetensors` of a case's folder,
//! made by `tests/golden/make_generation_fixtures.py`, which says what every tensor is.

use serde::Deserialize;

use super::golden::{Case, HfError, Kind, Tensor, Values, fact, forward_order, golden_dir};
use super::sampling;

/// What generation must give for one model.
pub struct Generation {
    /// Tensors, errors, and for MusicGen Melody the weights.
    pub case: Case,
}

impl Generation {
    /// The expectations of a committed case.
    pub fn committed(name: &str) -> Generation {
        let dir = golden_dir().join(name);
        Generation { case: Case::open_files(dir, "generation.json", "generation.safetensors") }
    }

    /// Every committed case of one kind, by name: `Musicgen` (text by cross-attention), `Melody` (text and chroma before
    /// the columns), `Tables` (chroma).
    pub fn all_of(kind: Kind) -> Vec<Generation> {
        let mut names: Vec<String> = std::fs::read_dir(golden_dir())
            .expect("tests/golden is committed")
            .map(|entry| entry.expect("a readable folder").path())
            .filter(|path| path.join("generation.json").is_file())
            .map(|path| path.file_name().expect("a folder's name").to_string_lossy().into_owned())
            .collect();
        names.sort();
        let all = names.iter().map(|name| Generation::committed(name));
        all.filter(|generation| generation.case.kind == kind).collect()
    }

    /// The case whose `config.json` and weights the expectations are of: what `write_checkpoint` takes.
    pub fn model(&self) -> Case {
        match self.case.kind {
            Kind::Musicgen => Case::committed(&self.case.name),
            _ => Case::open_files(&self.case.dir, "generation.json", "generation.safetensors"),
        }
    }

    fn runs<'a, F: for<'d> Deserialize<'d>>(&'a self, kind: &'static str) -> Vec<Run<'a, F>> {
        let runs = self.case.runs_of(kind);
        runs.map(|(name, run)| Run { case: &self.case, name, facts: fact(name, run) }).collect()
    }

    /// The prompts: `text`, and for decoders `text.long` (no projection stored).
    pub fn texts(&self) -> Vec<Run<'_, TextFacts>> {
        self.runs("text")
    }

    /// A prompt run by name.
    #[track_caller]
    pub fn text(&self, name: &str) -> Run<'_, TextFacts> {
        only(self.texts(), name)
    }

    /// The teacher-forced passes with text, or with a prefix.
    pub fn forwards(&self) -> Vec<Run<'_, ForwardFacts>> {
        self.runs("forward")
    }

    /// The generated sequences, in the order in which they were made.
    pub fn sequences(&self) -> Vec<Run<'_, SequenceFacts>> {
        self.runs("sequence")
    }

    /// A sequence by name.
    #[track_caller]
    pub fn sequence(&self, name: &str) -> Run<'_, SequenceFacts> {
        only(self.sequences(), name)
    }

    /// MusicGen Melody: what stands before the columns.
    pub fn prefixes(&self) -> Vec<Run<'_, PrefixFacts>> {
        self.runs("prefix")
    }

    /// A prefix by name.
    #[track_caller]
    pub fn prefix(&self, name: &str) -> Run<'_, PrefixFacts> {
        only(self.prefixes(), name)
    }

    /// The signals of the chroma case.
    pub fn chroma(&self) -> Vec<Run<'_, ChromaFacts>> {
        self.runs("chroma")
    }

    /// The filter bank of the chroma case.
    pub fn filters(&self) -> Run<'_, FilterFacts> {
        only(self.runs("filters"), "filters")
    }
}

#[track_caller]
fn only<'a, F>(runs: Vec<Run<'a, F>>, name: &str) -> Run<'a, F> {
    runs.into_iter().find(|run| run.name == name).unwrap_or_else(|| panic!("no run `{name}`"))
}

/// One run: what it was, and its tensors.
pub struct Run<'a, F> {
    case: &'a Case,
    /// Name of the run, which prefixes its tensors.
    pub name: &'a str,
    /// What it was.
    pub facts: F,
}

impl<F> Run<'_, F> {
    /// A tensor of the run, by the name behind the run's.
    #[track_caller]
    pub fn tensor(&self, name: &str) -> Tensor {
        self.case.tensor(&format!("{}.{name}", self.name))
    }

    /// Hugging Face's own float32 error of a tensor of the run.
    pub fn hf_error(&self, name: &str) -> Option<HfError> {
        self.case.hf_error(&format!("{}.{name}", self.name))
    }

    /// Whether the run holds a tensor.
    pub fn holds(&self, name: &str) -> bool {
        self.case.stored.contains_key(&format!("{}.{name}", self.name))
    }
}

/// What a text run was.
#[derive(Clone, Debug, Deserialize)]
pub struct TextFacts {
    /// Prompts.
    pub rows: usize,
    /// Tokens of each; the tensors are padded to the longest.
    pub lengths: Vec<usize>,
}

impl Run<'_, TextFacts> {
    /// The token ids of each prompt, without padding.
    pub fn ids(&self) -> Vec<Vec<u32>> {
        let ids = self.tensor("ids");
        let rows = ids.i32().chunks_exact(ids.shape[1]);
        rows.zip(&self.facts.lengths)
            .map(|(row, &n)| row[..n].iter().map(|&id| u32::try_from(id).expect("an id")).collect())
            .collect()
    }

    /// T5's last hidden states, `[rows, longest, text width]`, zero behind each prompt's end.
    pub fn states(&self) -> Tensor {
        self.tensor("states")
    }

    /// Their projection, `[rows, longest, d_model]`, zero behind each prompt's end.
    pub fn projected(&self) -> Tensor {
        self.tensor("projected")
    }
}

/// The rows of `[rows, tokens, width]` that belong to one prompt: the first `length` of row `row`.
pub fn real_rows(tensor: &Tensor, row: usize, length: usize) -> &[f32] {
    let (tokens, width) = (tensor.shape[1], tensor.shape[2]);
    &tensor.f32()[row * tokens * width..][..length * width]
}

/// Who the rows of a run are conditioned on.
#[derive(Clone, Debug, Deserialize)]
pub struct ForwardFacts {
    /// Rows of each half.
    pub rows: usize,
    /// Frames of codes; `steps` is one more.
    pub frames: usize,
    /// Columns fed.
    pub steps: usize,
    /// Positions before the columns: none with cross-attention.
    pub prefix: usize,
    /// Delay of each codebook.
    pub delays: Vec<usize>,
    /// The text run of a decoder.
    pub text: Option<String>,
    /// The prompt of each row.
    pub text_rows: Option<Vec<usize>>,
    /// The prefix run of a MusicGen Melody.
    pub prefix_run: Option<String>,
}

/// A part of a forward run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Rows with their text, padded text masked as Hugging Face does. Every site.
    Cond,
    /// The same codes with null text: the last residual and logits.
    Null,
    /// Rows with their text padded to the longest prompt of the text run, padding attended to with keys and values of
    /// zero, as audiocraft does: `cross_attn_out` of every layer, the last residual, logits. Not for a prefix.
    Attend,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Cond => "cond",
            Part::Null => "null",
            Part::Attend => "attend",
        }
    }
}

impl Run<'_, ForwardFacts> {
    /// The codes before the delay pattern, `[rows, codebooks, frames]`.
    pub fn codes(&self) -> Tensor {
        self.tensor("codes")
    }

    /// The decoder's input, `[rows, codebooks, steps]`; the vocabulary's size is the special token.
    pub fn delayed(&self) -> Tensor {
        self.tensor("delayed")
    }

    /// The sites that a part holds, in the order of the forward pass.
    pub fn sites(&self, part: Part) -> Vec<String> {
        let start = format!("{}.{}.", self.name, part.name());
        let names = self.case.names();
        let mut sites: Vec<String> =
            names.iter().filter_map(|name| name.strip_prefix(&start)).map(str::to_owned).collect();
        sites.sort_by_key(|site| forward_order(site));
        sites
    }

    /// The expectation at a site: `[rows, prefix + steps, d_model]`; `logits` `[rows, steps, codebooks, vocab]`.
    #[track_caller]
    pub fn site(&self, part: Part, site: &str) -> Tensor {
        self.tensor(&format!("{}.{site}", part.name()))
    }
}

/// How padded text is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextPad {
    /// Padded keys are masked.
    Mask,
    /// Padded keys and values are zero and keep their share of the softmax.
    Attend,
}

/// How codes were drawn.
#[derive(Clone, Debug, Deserialize)]
pub struct Sampling {
    /// Exact in f32.
    pub temperature: f64,
    /// 0: every code.
    pub top_k: usize,
    /// 0: every code. Exact in f32.
    pub top_p: f64,
    /// Of each row.
    pub seeds: Vec<u64>,
    /// Of each row.
    pub row_keys: Vec<u32>,
}

/// How a sequence past the longest window was made.
#[derive(Clone, Debug, Deserialize)]
pub struct Window {
    /// Frames of a window at most.
    pub longest: usize,
    /// Frames from one window's beginning to the next one's.
    pub stride: usize,
    /// Of each window: its first frame, its prompt's frames, its frames. The noise of its column `c` is that of step
    /// `first frame + c`.
    pub spans: Vec<[usize; 3]>,
}

/// What a sequence was.
#[derive(Clone, Debug, Deserialize)]
pub struct SequenceFacts {
    /// Takes.
    pub rows: usize,
    /// Frames given as codes.
    pub prompt: usize,
    /// Frames in all.
    pub frames: usize,
    /// None: conditional rows alone (the null text's where `text` and `prefix` are none).
    pub guidance: Option<f64>,
    /// The delayed columns whose logits are stored: those that feeding column `c` gives, which decide column `c + 1`.
    pub columns: Vec<usize>,
    /// Delay of each codebook.
    pub delays: Vec<usize>,
    /// The text run of a decoder; none for null text.
    pub text: Option<String>,
    /// The prompt of each row.
    pub text_rows: Option<Vec<usize>>,
    /// How padded text was taken.
    pub text_pad: Option<TextPad>,
    /// The prefix run of a MusicGen Melody.
    pub prefix: Option<String>,
    /// None: greedy.
    pub sampling: Option<Sampling>,
    /// None: one window.
    pub window: Option<Window>,
    /// The smallest distance of a choice from another: for greedy ones the gap of the two largest guided logits over
    /// the RMS of the row's; for sampled ones in parts of the kept mass.
    pub margin: f64,
}

impl SequenceFacts {
    /// The frame of codebook `q` that feeding delayed column `column` decides, unless the pattern leaves it special or
    /// the prompt gives it.
    pub fn decided(&self, column: usize, q: usize) -> Option<usize> {
        let frame = column.checked_sub(self.delays[q])?;
        (self.prompt..self.frames).contains(&frame).then_some(frame)
    }

    /// Delayed columns that are fed: `frames` and the longest delay.
    pub fn steps(&self) -> usize {
        self.frames + self.delays.iter().max().expect("a codebook")
    }
}

impl Run<'_, SequenceFacts> {
    /// The codes given, `[rows, codebooks, prompt]`; empty for none.
    pub fn prompt(&self) -> Tensor {
        match self.facts.prompt {
            0 => Tensor {
                shape: vec![self.facts.rows, self.facts.delays.len(), 0],
                values: Values::I32(Vec::new()),
            },
            _ => self.tensor("prompt"),
        }
    }

    /// The codes, `[rows, codebooks, frames]`, which begin with the prompt.
    pub fn codes(&self) -> Tensor {
        self.tensor("codes")
    }

    /// Logits of the conditional rows, `[rows, columns, codebooks, vocab]`.
    pub fn cond(&self) -> Tensor {
        self.tensor("cond")
    }

    /// Logits of the null rows; none where there is no guidance.
    pub fn null(&self) -> Option<Tensor> {
        self.facts.guidance.map(|_| self.tensor("null"))
    }

    /// The guided logits in the shape of [`Run::cond`].
    pub fn guided(&self) -> Vec<f64> {
        let null = self.null();
        sampling::guide(self.cond().f32(), null.as_ref().map(Tensor::f32), self.facts.guidance.unwrap_or(1.0))
    }

    /// What a teacher-forced pass is fed to see every step of this sequence, `[rows][codebooks][steps]`: the special
    /// token in column 0 and wherever the pattern has no code. Not for windows, each of which begins anew.
    pub fn fed(&self, special: i32) -> Vec<Vec<Vec<i32>>> {
        assert!(self.facts.window.is_none(), "`{}` was made in windows", self.name);
        let (codes, f) = (self.codes(), &self.facts);
        let row = |row: usize, q: usize| {
            let codes = &codes.i32()[(row * f.delays.len() + q) * f.frames..][..f.frames];
            let at = |step: usize| step.checked_sub(1 + f.delays[q]).and_then(|t| codes.get(t).copied());
            (0..f.steps()).map(|step| at(step).unwrap_or(special)).collect()
        };
        (0..f.rows).map(|r| (0..f.delays.len()).map(|q| row(r, q)).collect()).collect()
    }
}

/// What a prefix was made of.
#[derive(Clone, Debug, Deserialize)]
pub struct PrefixFacts {
    /// Takes.
    pub rows: usize,
    /// The text run.
    pub text: String,
    /// The prompt of each row.
    pub text_rows: Vec<usize>,
    /// Rows of text, those behind a prompt's end being zero.
    pub tokens: usize,
    /// Frames of chroma given; none: no audio, which is class 0.
    pub chroma_frames: Option<usize>,
    /// Rows of chroma: those given, repeated or cut.
    pub chroma_length: usize,
}

impl Run<'_, PrefixFacts> {
    /// The class of each frame of chroma, `[rows, chroma_frames]`; none without audio.
    pub fn classes(&self) -> Option<Tensor> {
        self.facts.chroma_frames.map(|_| self.tensor("classes"))
    }

    /// The rows before the columns, `[rows, chroma_length + tokens, d_model]`.
    pub fn states(&self) -> Tensor {
        self.tensor("states")
    }

    /// Those of the null half.
    pub fn null(&self) -> Tensor {
        self.tensor("null")
    }
}

/// A filter bank of chroma.
#[derive(Clone, Debug, Deserialize)]
pub struct FilterFacts {
    /// Samples a second.
    pub rate: usize,
    /// Samples a frame.
    pub n_fft: usize,
    /// Samples from one frame to the next.
    pub hop: usize,
    /// The bins of `columns`.
    pub bins: Vec<usize>,
}

impl Run<'_, FilterFacts> {
    /// The weights of the listed bins, `[bins, 12]`.
    pub fn columns(&self) -> Tensor {
        self.tensor("columns")
    }

    /// The sum of each filter over all bins, `[12]`.
    pub fn sums(&self) -> Tensor {
        self.tensor("sums")
    }
}

/// A signal whose chroma is stored.
#[derive(Clone, Debug, Deserialize)]
pub struct ChromaFacts {
    /// Its length.
    pub samples: usize,
    /// Frames of chroma.
    pub frames: usize,
    /// Samples of a part.
    pub part: usize,
    /// Partials (frequency, amplitude) of each part; the parts repeat.
    pub parts: Vec<Vec<[f64; 2]>>,
    /// The smallest gap of the two largest values of a frame of `normal`; 0 for silence.
    pub margin: f64,
}

impl Run<'_, ChromaFacts> {
    /// The signal, at 32,000 samples a second.
    pub fn signal(&self) -> Vec<f32> {
        let sample = |i: usize| {
            let partials = &self.facts.parts[i / self.facts.part % self.facts.parts.len()];
            let sine = |&[frequency, amplitude]: &[f64; 2]| {
                amplitude * (std::f64::consts::TAU * frequency * i as f64 / 32_000.0).sin()
            };
            partials.iter().map(sine).sum::<f64>() as f32
        };
        (0..self.facts.samples).map(sample).collect()
    }

    /// The filtered power, `[frames, 12]`.
    pub fn energy(&self) -> Tensor {
        self.tensor("energy")
    }

    /// The same over each frame's largest.
    pub fn normal(&self) -> Tensor {
        self.tensor("normal")
    }

    /// The class of each frame, `[frames]`: its largest, ties to the smaller.
    pub fn classes(&self) -> Tensor {
        self.tensor("classes")
    }
}
