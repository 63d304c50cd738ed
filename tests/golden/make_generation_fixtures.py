#!/usr/bin/env python3
"""Golden outputs of text-conditioned generation, from Hugging Face transformers run in float64.

    make_generation_fixtures.py --out tests/golden       every case
    make_generation_fixtures.py --check tests/golden     run them again, compare with what is there
    ... --cases A,B                                      some cases

Beside a case's files from `make_fixtures.py` this writes `generation.json` (what the runs were, how far HF's own float32
is from float64) and `generation.safetensors`. The weights are the case's own; `setup_ref_venv.sh` makes the environment.
The loop around HF's decoder is `generation.py`; where HF's `generate` can do the same, equality is asserted here, and
every run is repeated in float32, whose codes must be the same.

Runs and their tensors, each `RUN.NAME`; rows are prompts, K codebooks, V codes, E text tokens:

text      `ids` [rows, E] padded with 0 behind `lengths`; `states` [rows, E, text width] and `projected` [rows, E, d_model],
          zero behind `lengths`. T5 wholly in float64 (HF would pass its softmax and norms through float32).
forward   teacher-forced, every row with the text of that number: `codes` [rows, K, frames], `delayed` [rows, K, steps],
          steps = frames + 1; `cond.SITE` [rows, steps, d_model] for every site, `cond.logits` [rows, steps, K, V];
          `null.` the last residual and logits of the null half; `attend.` what differs where padded text keeps its share
          of the softmax, as in audiocraft (keys and values zero).
sequence  generated codes [rows, K, frames] that begin with `prompt` [rows, K, prompt frames]; `cond` and `null`
          [rows, columns, K, V]: logits at the columns of the delayed sequence that `columns` lists; guided logits are
          null + guidance * (cond - null). Choices are as `generation.py` says. `margin` is the smallest distance of any
          choice from another one; seeds and prompts were taken so that it is wide. A sampled run lists a seed and a
          row key for each row; a windowed one its windows [first frame, prompt frames, frames].
prefix    MusicGen Melody, whose weights `generation.json` lists: `classes` [rows, chroma frames], `states` and `null`
          [rows, chroma_length + tokens, d_model]: what stands before the columns. Sites of its forward run hold these
          positions too, its logits do not.
chroma    `energy`, `normal` [frames, 12], `classes` [frames] of a signal that the run describes (`chroma.py`);
          `filters`: some columns [bins, 12] of the filter bank, and the sum of each filter.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile

sys.dont_write_bytecode = True

import numpy as np
import torch
from safetensors.torch import load_file
from transformers.models.t5.modeling_t5 import T5LayerNorm

import cases
import procedural
from chroma import chroma_case
from generation import Greedy, Prefix, Sampled, Text, delays, forward, generate, generated_by_hf, windowed
from record import Case, Sites, delayed, musicgen, noise_codes

torch.set_grad_enabled(False)

# Smallest margins accepted: float32 moves a logit by about 3e-6 of their scale.
GREEDY_MARGIN, SAMPLED_MARGIN = 1e-4, 3e-5

LENGTHS = (1, 4, 9)
GUIDANCE = 3.0


class Close(Exception):
    """A choice so near to another that float32 might make the other."""


class GenerationCase(Case):
    MANIFEST, EXPECTED = "generation.json", "generation.safetensors"


# ---------------------------------------------------------------- text


@contextlib.contextmanager
def wholly_double():
    """HF's T5 takes softmax and mean squares in float32 whatever the model's type; here they stay in float64."""
    norm, as_float = T5LayerNorm.forward, torch.Tensor.float

    def in_own_type(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    T5LayerNorm.forward, torch.Tensor.float = in_own_type, lambda x: x if x.dtype == torch.float64 else as_float(x)
    try:
        yield
    finally:
        T5LayerNorm.forward, torch.Tensor.float = norm, as_float


def prompt_ids(seed, lengths, vocab):
    """Padded ids [prompts, longest] and their mask; each ends with the end of text (1)."""
    rng = np.random.default_rng(seed)
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, : length - 1] = torch.from_numpy(rng.integers(2, vocab, length - 1))
        ids[row, length - 1] = 1
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return ids, mask.long()


def encode_text(model, ids, mask):
    """T5's final states and their projection, both zero behind each prompt's end."""
    dtype = model.decoder.lm_heads[0].weight.dtype
    with wholly_double() if dtype == torch.float64 else contextlib.nullcontext():
        states = model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    projected = model.enc_to_dec_proj(states) if hasattr(model, "enc_to_dec_proj") else states
    assert states.dtype == projected.dtype == dtype
    return states * mask[..., None], projected * mask[..., None]


def check_text(model, ids, mask, states):
    """The float64 of HF itself agrees, and a prompt alone gives what it gives in a batch."""
    held = model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    assert float((held - states).abs().max()) < 2e-6
    for row in range(ids.shape[0]):
        length = int(mask[row].sum())
        alone = encode_text(model, ids[row : row + 1, :length], mask[row : row + 1, :length])[0]
        assert float((alone[0] - states[row, :length]).abs().max()) < 1e-12


# ---------------------------------------------------------------- one case


class Maker:
    """A model in both precisions, and the folder that its runs go to."""

    def __init__(self, case, double, single):
        self.case, self.double, self.single = case, double, single
        for model in (double, single):
            model.decoder.set_attn_implementation("sdpa")  # the eager mask builder overflows in float64
        self.config = double.decoder.config
        self.vocab, self.codebooks = self.config.vocab_size, self.config.num_codebooks
        self.layers = self.config.num_hidden_layers

    def text(self, run, ids, mask, projected=True):
        """Writes a text run; returns what both precisions made of it."""
        both = [encode_text(model, ids, mask) for model in (self.double, self.single)]
        check_text(self.double, ids, mask, both[0][0])
        self.case.manifest["runs"][run] = {"kind": "text", "rows": ids.shape[0], "lengths": mask.sum(1).tolist()}
        self.case.put(f"{run}.ids", ids)
        self.case.put(f"{run}.states", both[0][0], both[1][0])
        if projected:
            self.case.put(f"{run}.projected", both[0][1], both[1][1])
        return [projected for _, projected in both]

    def sites(self, run, part, gold, near, only=None):
        """Writes recorded sites; what one layer leaves is what the next one finds."""
        for i in range(self.layers):
            before = "embed" if i == 0 else f"layers.{i - 1}.resid_post"
            assert torch.equal(gold[f"layers.{i}.resid_pre"], gold[before])
            if only is None:
                self.case.manifest["aliases"][f"{run}.{part}.layers.{i}.resid_pre"] = f"{run}.{part}.{before}"
        for site, tensor in gold.items():
            if not site.endswith(".resid_pre") and (only is None or only(site)):
                self.case.put(f"{run}.{part}.{site}", tensor, near[site])

    def forward(self, run, conditions, frames, facts, attend=None):
        """Teacher-forced with [cond, null] rows; `conditions`, `attend`: one of each precision."""
        rows = conditions[0].rows
        codes = noise_codes(11, rows, self.codebooks, frames, self.vocab)
        ids = delayed(codes, delays(self.config), self.vocab)
        self.case.manifest["runs"][run] = {
            "kind": "forward", "rows": rows, "frames": frames, "steps": frames + 1, "prefix": conditions[0].prefix,
            "delays": delays(self.config), **facts}
        self.case.put(f"{run}.codes", codes)
        self.case.put(f"{run}.delayed", ids)

        def recorded(model, condition, times):
            with Sites(model.decoder.model.decoder) as got:
                logits = forward(model.decoder, ids.repeat(times, 1, 1), condition)
            got["logits"] = logits
            return got

        models = (self.double, self.single)
        gold, near = (recorded(m, c.with_null(), 2) for m, c in zip(models, conditions))
        half = lambda got, which: {site: tensor.split(rows)[which] for site, tensor in got.items()}
        last = f"layers.{self.layers - 1}.resid_post"
        self.sites(run, "cond", half(gold, 0), half(near, 0))
        self.sites(run, "null", half(gold, 1), half(near, 1), lambda site: site in (last, "logits"))
        if attend is not None:
            for i in range(self.layers):
                assert not gold[f"layers.{i}.cross_attn_out"][rows:].any(), "null text contributes exactly nothing"
            other, other_near = (recorded(m, c, 1) for m, c in zip(models, attend))
            self.sites(run, "attend", other, other_near,
                       lambda site: site in (last, "logits") or site.endswith("cross_attn_out"))

    def sequence(self, run, conditions, prompt, frames, guidance, choose, columns=(), facts=None, window=None, hf=None):
        """Generates in float64, again in float32; `choose()` makes a fresh chooser. `hf`: arguments of HF's `generate`
        for the same greedy sequence. Nothing is written before every choice proved to be clear."""
        chooser = choose()
        extra = {}
        if window is None:
            codes, logits = generate(self.double.decoder, conditions[0], prompt, frames, guidance, chooser, columns)
        else:
            codes, spans = windowed(self.double.decoder, conditions[0], prompt, frames, guidance, chooser, *window)
            logits, extra = {}, {"window": {"longest": window[0], "stride": window[1], "spans": spans}}
        margins = chooser.margins()
        sampled = isinstance(chooser, Sampled)
        if margins.min() < (SAMPLED_MARGIN if sampled else GREEDY_MARGIN):
            raise Close(f"{run}: margin {margins.min():.2g}")
        if window is None:
            again, near = generate(self.single.decoder, conditions[1], prompt, frames, guidance, choose(), columns)
        else:
            again, near = windowed(self.single.decoder, conditions[1], prompt, frames, guidance, choose(), *window)[0], {}
        assert torch.equal(codes, again), f"{run}: float32 gives other codes"
        if hf is not None:
            assert torch.equal(codes, generated_by_hf(self.double, frames - prompt.shape[-1], guidance or 1.0, **hf)), run
        if sampled:
            extra["sampling"] = {
                "temperature": chooser.temperature, "top_k": chooser.top_k, "top_p": chooser.top_p,
                "seeds": chooser.seeds, "row_keys": chooser.row_keys}

        def write():
            self.case.manifest["runs"][run] = {
                "kind": "sequence", "rows": prompt.shape[0], "prompt": prompt.shape[-1], "frames": frames,
                "guidance": guidance, "columns": list(columns), "delays": delays(self.config), **(facts or {}), **extra,
                "margin": float(f"{margins.min():.3g}")}
            if prompt.shape[-1]:
                self.case.put(f"{run}.prompt", prompt)
            self.case.put(f"{run}.codes", codes)
            for name, tensor in logits.items():
                if name != "guided":
                    self.case.put(f"{run}.{name}", tensor, near[name])

        return write

    def no_prompt(self, rows):
        return torch.zeros(rows, self.codebooks, 0, dtype=torch.int64)


def first_clear(about, attempt, seeds):
    """The first seed whose run has every choice clear."""
    tried = []
    for seed in seeds:
        try:
            return attempt(seed)
        except Close as close:
            tried.append(str(close))
    raise SystemExit(f"{about}: no seed is clear: {tried}")


def text_conditions(projected, mask, rows=None):
    pick = slice(None) if rows is None else rows
    return [Text(p[pick], None if mask is None else mask[pick]) for p in projected]


def no_text(maker, rows):
    """Null text, as HF's `get_unconditional_inputs` gives it: a masked token of zeros."""
    zeros = torch.zeros(rows, 1, maker.config.hidden_size)
    mask = torch.zeros(rows, 1, dtype=torch.int64)
    return [Text(zeros.double(), mask), Text(zeros, mask)]


# The sequences that follow from the prompts alone: run, frames, guidance, how padded text is taken, window.
GREEDY_RUNS = [
    ("greedy.guided", 200, GUIDANCE, "mask", None),
    ("greedy.plain", 200, None, "mask", None),
    ("greedy.attend", 40, GUIDANCE, "attend", None),
    ("window.greedy", 50, GUIDANCE, "mask", (20, 12)),
]


def choose_prompts(maker, text_vocab, tries=12):
    """One prompt of each length: of those where every choice of every greedy run is clear, the one with the most different
    frames. Padding is part of `greedy.attend`, so candidates are padded as the chosen ones will be."""
    best, lm = [], maker.double.decoder
    for length in LENGTHS:
        for batch in range(20):
            rows = [prompt_ids(1000 * length + batch * tries + i, (length,), text_vocab)[0][0] for i in range(tries)]
            if length == 1:  # one id: the end of text, then what else the vocabulary has
                first = 1 + batch * tries
                rows = [torch.tensor([first + i]) for i in range(min(tries, text_vocab - first))]
            if not rows:
                raise SystemExit(f"{maker.case.name}: no prompt of length {length} is clear")
            ids = torch.zeros(len(rows), max(LENGTHS), dtype=torch.int64)
            mask = torch.zeros_like(ids)
            for i, row in enumerate(rows):
                ids[i, :length], mask[i, :length] = row, 1
            projected, clear = [encode_text(maker.double, ids, mask)[1]], np.inf
            for run, frames, guidance, pad, window in GREEDY_RUNS:
                greedy = Greedy()
                condition = text_conditions(projected, mask if pad == "mask" else None)[0]
                start = maker.no_prompt(len(rows))
                if window is None:
                    codes, _ = generate(lm, condition, start, frames, guidance, greedy)
                else:
                    codes, _ = windowed(lm, condition, start, frames, guidance, greedy, *window)
                clear = np.minimum(clear, greedy.margins())
                if run == "greedy.guided":
                    different = np.array([len(set(map(tuple, row.T.tolist()))) for row in codes])
            if (clear > 2 * GREEDY_MARGIN).any():
                best.append(ids[int(np.where(clear > 2 * GREEDY_MARGIN, different, -1).argmax())])
                break
        else:
            raise SystemExit(f"{maker.case.name}: no prompt of length {length} is clear")
    mask = torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]
    return torch.stack(best), mask.long()


def greedy_runs(maker, ids, mask, projected):
    hf = dict(input_ids=ids, attention_mask=mask)
    last = 199 + delays(maker.config)[-1]
    columns = {"greedy.guided": (0, 1, 2, 3, 4, 5, 6, 7, 40, last), "greedy.plain": (0, 7, 40, last),
               "greedy.attend": (0, 9), "window.greedy": ()}
    for run, frames, guidance, pad, window in GREEDY_RUNS:
        maker.sequence(run, text_conditions(projected, mask if pad == "mask" else None), maker.no_prompt(len(LENGTHS)),
                       frames, guidance, Greedy, columns[run],
                       dict(text="text", text_rows=list(range(len(LENGTHS))), text_pad=pad), window,
                       hf if pad == "mask" and window is None else None)()


def decoder_case(name, out):
    spec = cases.DECODERS[name]
    maker = Maker(GenerationCase(name, "musicgen", f"text, generation: {spec['about']}"),
                  musicgen(cases.musicgen_config(spec))[0].double(), musicgen(cases.musicgen_config(spec))[0])
    text_vocab = maker.double.config.text_encoder.vocab_size
    ids, mask = choose_prompts(maker, text_vocab)
    projected = maker.text("text", ids, mask)
    maker.text("text.long", *prompt_ids(3, (140,), text_vocab), projected=False)
    rows = [0, len(LENGTHS) - 1]  # the shortest prompt, padded most, and the longest
    maker.forward("forward", text_conditions(projected, mask, rows), 5, dict(text="text", text_rows=rows),
                  text_conditions(projected, None, rows))
    greedy_runs(maker, ids, mask, projected)
    continuations(maker, ids, mask, projected)
    samples(maker, name, mask, projected)
    windows(maker, name, mask, projected)
    maker.case.write(out)


def continuations(maker, ids, mask, projected):
    """From an audio prompt of codes: shorter than the longest delay, a page of 16, past two pages; with text and without."""
    wait, rows = delays(maker.config)[-1], [1, 2]
    conditions = text_conditions(projected, mask, rows)
    for known in (1, 5, 16, 37):
        frames, run = known + 23, f"continue.p{known}"

        def attempt(seed):
            prompt = noise_codes(seed, 2, maker.codebooks, known, maker.vocab)
            hf = dict(input_ids=ids[rows], attention_mask=mask[rows],
                      decoder_input_ids=prompt.reshape(2 * maker.codebooks, known))
            return maker.sequence(run, conditions, prompt, frames, GUIDANCE, Greedy, (known, frames + wait - 1),
                                  dict(text="text", text_rows=rows, text_pad="mask"), hf=hf)

        first_clear(run, attempt, range(100 + known, 140 + known))()
    for known in (0, 18):
        frames, run = known + 30, f"untold.p{known}"

        def attempt(seed):
            rows = 2 if known else 1
            prompt = noise_codes(seed, rows, maker.codebooks, known, maker.vocab)
            hf = maker.double.get_unconditional_inputs(rows)
            hf = dict(encoder_outputs=tuple(s.double() for s in hf.encoder_outputs), attention_mask=hf.attention_mask)
            if known:
                hf["decoder_input_ids"] = prompt.reshape(rows * maker.codebooks, known)
            return maker.sequence(run, no_text(maker, rows), prompt, frames, None, Greedy, (known,),
                                  dict(text=None, text_rows=None, text_pad="mask"), hf=hf)

        first_clear(run, attempt, range(200, 240))()


# run, guidance, settings
SAMPLES = [
    ("sample.plain", None, dict()),
    ("sample.guided", GUIDANCE, dict(top_k=250)),
    ("sample.top_k", GUIDANCE, dict(temperature=0.75, top_k=5)),
    ("sample.top_p", GUIDANCE, dict(temperature=1.25, top_p=0.875)),
    ("sample.both", 1.5, dict(top_k=10, top_p=0.6875)),
]
ROW_KEYS = [0, 1, 4_000_000_007]


def clear_seeds(about, run, row_keys, tries=12):
    """A 64-bit seed for each row, the first whose draws are all clear. Rows do not depend on each other, so a batch
    tries many: `run(row of each, seeds, row keys)` generates with them and returns the margins. None where none is clear:
    column 0 does not depend on the seed, so what it keeps may be near another set whatever is drawn."""
    found = [None] * len(row_keys)
    for batch in range(6):
        open_rows = [row for row, seed in enumerate(found) if seed is None]
        rows = [row for row in open_rows for _ in range(tries)]
        seeds = [procedural.fnv1a64(f"{about}.{row}.{batch * tries + i}") for row in open_rows for i in range(tries)]
        margins = run(rows, seeds, [row_keys[row] for row in rows])
        for row, seed, margin in zip(rows, seeds, margins):
            if found[row] is None and margin > 1.5 * SAMPLED_MARGIN:
                found[row] = seed
        if None not in found:
            return found
    return None


def samples(maker, name, mask, projected):
    for run, guidance, wanted in SAMPLES:
        # The more codes are kept, the nearer are their edges: keep fewer where a vocabulary is wide.
        for fewer in range(4):
            settings = dict(wanted)
            if "top_k" in wanted:
                settings["top_k"] -= fewer
            elif "top_p" in wanted:
                settings["top_p"] -= fewer / 32
                settings["temperature"] -= fewer / 4

            def margins(rows, seeds, keys):
                chooser = Sampled(seeds, keys, **settings)
                generate(maker.double.decoder, text_conditions(projected, mask, rows)[0], maker.no_prompt(len(rows)), 60,
                         guidance, chooser)
                return chooser.margins()

            seeds = clear_seeds(f"{name}.{run}", margins, ROW_KEYS)
            if seeds is not None:
                break
            print(f"{name}.{run}: no clear seed for {settings}", flush=True)
        else:
            raise SystemExit(f"{name}.{run}: no clear seed")
        maker.sequence(run, text_conditions(projected, mask), maker.no_prompt(len(LENGTHS)), 60, guidance,
                       lambda: Sampled(seeds, ROW_KEYS, **settings), (20,),
                       dict(text="text", text_rows=list(range(len(LENGTHS))), text_pad="mask"))()


def windows(maker, name, mask, projected):
    """Past the longest window: from an audio prompt, greedy; sampled, with noise that follows the absolute column."""
    rows, window = [1, 2], (20, 12)
    told = dict(text="text", text_rows=rows, text_pad="mask")

    def prompted(seed):
        prompt = noise_codes(seed, 2, maker.codebooks, 5, maker.vocab)
        return maker.sequence("window.prompted", text_conditions(projected, mask, rows), prompt, 50, GUIDANCE, Greedy, (),
                              told, window)

    first_clear("window.prompted", prompted, range(300, 340))()

    def margins(picked, seeds, keys):
        chooser = Sampled(seeds, keys, top_k=250)
        condition = text_conditions(projected, mask, [rows[row] for row in picked])[0]
        windowed(maker.double.decoder, condition, maker.no_prompt(len(picked)), 50, GUIDANCE, chooser, *window)
        return chooser.margins()

    keys = [3, 9]
    seeds = clear_seeds(f"{name}.window.sampled", margins, keys)
    maker.sequence("window.sampled", text_conditions(projected, mask, rows), maker.no_prompt(2), 50, GUIDANCE,
                   lambda: Sampled(seeds, keys, top_k=250), (), told, window)()


# ---------------------------------------------------------------- MusicGen Melody


def prefix_rows(model, ids, mask, classes):
    """HF's rows before the columns, and those of the null half: projected one-hot chroma, repeated or cut to
    `chroma_length`, then the projected text, zero behind its end. No chroma, and the null half: class 0 throughout; the
    null half's text is zero."""
    config, dtype = model.config, model.decoder.lm_heads[0].weight.dtype
    text = encode_text(model, ids, mask)[1]

    def audio(classes):
        one_hot = torch.nn.functional.one_hot(classes, config.num_chroma).to(dtype)
        rows = model.audio_enc_to_dec_proj(one_hot)
        return rows.repeat(1, -(-config.chroma_length // rows.shape[1]), 1)[:, : config.chroma_length]

    silent = torch.zeros(ids.shape[0], 1, dtype=torch.int64)
    return (torch.cat([audio(silent if classes is None else classes), text], 1),
            torch.cat([audio(silent), torch.zeros_like(text)], 1))


def melody_case(name, out):
    spec = cases.MELODIES[name]
    case = GenerationCase(name, "melody", spec["about"])
    case.config = cases.musicgen_config(spec)
    single, case.manifest["weights"], case.manifest["weights_sha256"] = musicgen(case.config)
    maker = Maker(case, musicgen(cases.musicgen_config(spec))[0].double(), single)
    models, length = (maker.double, maker.single), spec["chroma_length"]
    ids, mask = prompt_ids(5, LENGTHS, maker.double.config.text_encoder.vocab_size)
    maker.text("text", ids, mask)

    def condition(ids, mask, classes):
        return [Prefix(*prefix_rows(model, ids, mask, classes)) for model in models]

    def prefix(run, rows, frames, seed, alone=False):
        """A run of rows before the columns; `alone`: without the padding that the batch gives."""
        tokens = max(LENGTHS[row] for row in rows) if alone else max(LENGTHS)
        some, held = ids[rows, :tokens], mask[rows, :tokens]
        classes = None
        if frames is not None:
            classes = torch.from_numpy(np.random.default_rng(seed).integers(0, 12, (len(rows), frames)))
        both = condition(some, held, classes)

        def write():
            case.manifest["runs"][run] = {
                "kind": "prefix", "rows": len(rows), "text": "text", "text_rows": rows, "tokens": tokens,
                "chroma_frames": frames, "chroma_length": length}
            if classes is not None:
                case.put(f"{run}.classes", classes)
            case.put(f"{run}.states", both[0].states, both[1].states)
            case.put(f"{run}.null", both[0].null_states, both[1].null_states)

        # With its cache, HF's generate for this model drops these rows before the first step (4.57.6: the cache is there
        # from the start, and `prepare_inputs_for_generation` takes that for a later step).
        hf = dict(input_ids=some, attention_mask=held, use_cache=False)
        if classes is not None:
            hf["input_features"] = torch.nn.functional.one_hot(classes, 12).double()
        return both, hf, write

    # Chroma shorter than the prefix is repeated, longer is cut; none is class 0.
    for ending, rows, frames, alone, steps in (
            ("short", [1, 2], length - 4, False, 60), ("long", [2], length + 2, False, 30), ("none", [1], None, True, 60)):
        def attempt(seed):
            both, hf, write = prefix(f"prefix.{ending}", rows, frames, seed, alone)
            facts = dict(prefix=f"prefix.{ending}")
            last = steps + delays(maker.config)[-1] - 1
            return both, write, [
                maker.sequence(f"greedy.{ending}", both, maker.no_prompt(len(rows)), steps, GUIDANCE, Greedy,
                               (0, 1, 2, 3, 17, last), facts, hf=hf),
                maker.sequence(f"plain.{ending}", both, maker.no_prompt(len(rows)), 30, None, Greedy, (0, 9), facts,
                               hf=hf)]

        both, write, sequences = first_clear(f"{name} {ending}", attempt, range(500, 540))
        for each in (write, *sequences):
            each()
        if ending == "short":
            maker.forward("forward", both, 5, dict(prefix_run="prefix.short"))
            told = both
    rows = [1, 2]

    def prompted(seed):
        prompt = noise_codes(seed, 2, maker.codebooks, 19, maker.vocab)
        return maker.sequence("continue.p19", told, prompt, 40, GUIDANCE, Greedy, (19,), dict(prefix="prefix.short"))

    first_clear("continue.p19", prompted, range(600, 640))()

    def margins(picked, seeds, keys):
        chooser = Sampled(seeds, keys, top_k=250)
        condition = Prefix(told[0].states[picked], told[0].null_states[picked])
        generate(maker.double.decoder, condition, maker.no_prompt(len(picked)), 60, GUIDANCE, chooser)
        return chooser.margins()

    seeds = clear_seeds(f"{name}.sample.guided", margins, [0, 1])
    maker.sequence("sample.guided", told, maker.no_prompt(2), 60, GUIDANCE, lambda: Sampled(seeds, [0, 1], top_k=250), (20,),
                   dict(prefix="prefix.short"))()
    maker.case.write(out)


# ---------------------------------------------------------------- command line


def make(names, out):
    for name in names:
        if name in cases.DECODERS:
            decoder_case(name, out)
        elif name in cases.MELODIES:
            melody_case(name, out)
        else:
            case = GenerationCase(name, "tables", "the chroma that MusicGen Melody is given, from a signal")
            chroma_case(case)
            case.write(out)


COMMITTED = [*cases.DECODERS, *cases.MELODIES, "chroma"]


def check(names, committed):
    """Fails where a fresh run differs from the committed one by more than float64 can on another processor."""
    wrong = []
    with tempfile.TemporaryDirectory() as fresh:
        make(names, fresh)
        for name in names:
            new, old = (load_file(os.path.join(d, name, GenerationCase.EXPECTED)) for d in (fresh, committed))
            if new.keys() != old.keys():
                wrong.append(f"{name}: tensors differ: {sorted(new.keys() ^ old.keys())}")
                continue
            for key, a in new.items():
                b = old[key]
                # One unit in the last place of f32.
                scale = 2e-7 * max(1.0, float(b.abs().max()) if b.numel() else 0.0)
                if a.shape != b.shape or a.dtype != b.dtype or (
                        a.numel() and float((a.double() - b.double()).abs().max()) > scale):
                    wrong.append(f"{name}: `{key}` differs")
            manifests = []
            for folder in (fresh, committed):
                with open(os.path.join(folder, name, GenerationCase.MANIFEST)) as f:
                    manifests.append(json.load(f))
                for run in manifests[-1]["runs"].values():
                    run.pop("margin", None)  # follows the processor
            for key in ("weights", "weights_sha256", "runs", "aliases"):
                if manifests[0][key] != manifests[1][key]:
                    wrong.append(f"{name}: manifest's `{key}` differs")
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(names)} cases reproduced")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", metavar="DIR")
    where.add_argument("--check", metavar="DIR")
    parser.add_argument("--cases", default=",".join(COMMITTED), metavar="A,B")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = args.cases.split(",")
    for name in names:
        if name not in COMMITTED:
            sys.exit(f"unknown case `{name}`: expected one of {', '.join(COMMITTED)}")
    if args.check:
        check(names, args.check)
    else:
        make(names, args.out)


if __name__ == "__main__":
    main()
