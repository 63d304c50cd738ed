"""A slow MusicGen: delay pattern, guidance, greedy choice and sampling, one column at a time.

The decoder is Hugging Face's, with its cache; everything around it is written out here. Column 0 is all special; feeding
column c decides column c + 1, where codebook q holds frame c - delay(q): special outside 0..frames, the prompt's code
below `prompt` frames, else the choice. Guided rows are [conditional rows, null rows].
"""

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

import philox
from record import delayed


def delays(config):
    return [q // config.audio_channels for q in range(config.num_codebooks)]


# ---------------------------------------------------------------- conditions: what a decoder is given beside its ids


class Text:
    """Cross-attention over projected text [rows, E, d], masked as HF does (`mask`) or attended to everywhere (None)."""

    def __init__(self, projected, mask):
        self.projected, self.mask = projected, mask
        self.rows, self.prefix = projected.shape[0], 0

    def first(self):
        return dict(encoder_hidden_states=self.projected, encoder_attention_mask=self.mask)

    next = first

    def null(self):
        """HF's null half: zeros, masked; text that is attended to stays so, with keys and values of zero."""
        return Text(torch.zeros_like(self.projected), None if self.mask is None else torch.zeros_like(self.mask))

    def with_null(self):
        null = self.null()
        mask = None if self.mask is None else torch.cat([self.mask, null.mask])
        return Text(torch.cat([self.projected, null.projected]), mask)


class Prefix:
    """Rows before the first column (MusicGen Melody): [rows, prefix, d]. The null half is not zero: it is given."""

    def __init__(self, states, null_states=None):
        self.states, self.null_states = states, null_states
        self.rows, self.prefix = states.shape[0], states.shape[1]

    def first(self):
        return dict(encoder_hidden_states=self.states)

    def next(self):
        return {}

    def null(self):
        return Prefix(self.null_states)

    def with_null(self):
        return Prefix(torch.cat([self.states, self.null_states]))


def forward(lm, ids, condition, cache=None, first=True):
    """Logits [rows, columns, codebooks, vocab] of delayed ids [rows, codebooks, columns]; the prefix's are dropped."""
    rows, codebooks, columns = ids.shape
    given = condition.first() if first else condition.next()
    out = lm(input_ids=ids.reshape(rows * codebooks, columns), past_key_values=cache, use_cache=cache is not None,
             **given).logits
    out = out.view(rows, codebooks, -1, out.shape[-1]).transpose(1, 2)
    return out[:, out.shape[1] - columns :]


# ---------------------------------------------------------------- choosing codes


class Greedy:
    """The largest guided logit, ties to the smaller code. `gaps` [(rows, codebooks) a column]: top-1 over top-2."""

    def __init__(self):
        self.gaps, self.squares = [], []

    def __call__(self, column, guided, live):
        top = np.sort(guided, -1)
        self.gaps.append(np.where(live, top[..., -1] - top[..., -2], np.inf))
        self.squares.append((guided**2).mean((1, 2)))
        return guided.argmax(-1)

    def margins(self):
        """[rows]: the smallest gap, over the RMS of the row's guided logits."""
        return np.min(self.gaps, axis=(0, 2)) / np.sqrt(np.mean(self.squares, 0))


class Sampled:
    """Temperature, top-k (ties kept), top-p (ties kept), one draw: the first code in vocabulary order whose cumulative
    mass exceeds u times the mass of the kept codes. `step = offset + column` keys the noise.

    A margin is the smallest of: the distance of u to an edge of the cumulative mass; the distance of top_p to an edge of
    the mass sorted downwards, both relative to the mass; the gap between the k-th and the next score."""

    def __init__(self, seeds, row_keys, temperature=1.0, top_k=0, top_p=0.0):
        self.seeds, self.row_keys = seeds, row_keys
        # What a float32 setting holds.
        self.temperature, self.top_k, self.top_p = float(np.float32(temperature)), top_k, float(np.float32(top_p))
        self.offset, self.closest = 0, []

    def __call__(self, column, guided, live):
        rows, codebooks, vocab = guided.shape
        u = philox.uniform(self.seeds, self.row_keys, self.offset + column, codebooks)
        score = guided / self.temperature
        down = -np.sort(-score, -1)
        kept = np.ones_like(score, bool)
        margin = np.full((rows, codebooks), np.inf)
        if 0 < self.top_k < vocab:
            kept = score >= down[..., self.top_k - 1 : self.top_k]
            margin = np.minimum(margin, down[..., self.top_k - 1] - down[..., self.top_k])
        mass = np.where(kept, np.exp(score - down[..., :1]), 0.0)
        if 0 < self.top_p < 1:
            order = np.argsort(-np.where(kept, score, -np.inf), -1, kind="stable")
            running = np.take_along_axis(mass, order, -1).cumsum(-1)
            wanted = self.top_p * running[..., -1:]
            last = (running >= wanted).argmax(-1)[..., None]
            kept &= score >= np.take_along_axis(np.take_along_axis(score, order, -1), last, -1)
            margin = np.minimum(margin, (np.abs(running - wanted) / running[..., -1:]).min(-1))
            mass = np.where(kept, mass, 0.0)
        running = mass.cumsum(-1)
        total = running[..., -1:]
        target = u[..., None] * total
        # The last edge is the total itself, which u never reaches.
        edges = np.where(running < total, np.abs(running - target) / total, np.inf)
        margin = np.minimum(margin, edges.min(-1))
        self.closest.append(np.where(live, margin, np.inf))
        over = running > target
        return np.where(over.any(-1), over.argmax(-1), vocab - 1 - kept[..., ::-1].argmax(-1))

    def margins(self):
        """[rows]"""
        return np.min(self.closest, axis=(0, 2))


# ---------------------------------------------------------------- loops


def generate(lm, condition, prompt, frames, guidance, choose, keep=()):
    """Codes [rows, codebooks, frames], which begin with `prompt` [rows, codebooks, P], and the logits at the columns
    `keep`: {"cond", "null", "guided": [rows, columns, codebooks, vocab]}; "cond" alone where there is no guidance."""
    special, wait = lm.config.vocab_size, delays(lm.config)
    rows, codebooks, known = prompt.shape
    assert condition.rows == rows and frames > known
    codes = torch.zeros(rows, codebooks, frames, dtype=torch.int64)
    codes[:, :, :known] = prompt
    both = condition if guidance is None else condition.with_null()
    fed = torch.full((rows, codebooks, frames + wait[-1] + 1), special)
    fed[:, :, : known + 1] = delayed(codes[:, :, :known], wait, special)
    frame = np.arange(fed.shape[-1] - 1)[:, None] - np.array(wait)  # decided by feeding each column
    live = (frame >= known) & (frame < frames)
    cache, kept = EncoderDecoderCache(DynamicCache(), DynamicCache()), {}
    for column in range(known, frames + wait[-1]):
        new = fed[:, :, : known + 1] if column == known else fed[:, :, column : column + 1]
        out = forward(lm, new if guidance is None else new.repeat(2, 1, 1), both, cache, column == known)[:, -1]
        cond, null = (out, None) if guidance is None else out.split(rows)
        guided = cond if guidance is None else null + guidance * (cond - null)
        if column in keep:
            parts = {"cond": cond} if guidance is None else {"cond": cond, "null": null, "guided": guided}
            for name, logits in parts.items():
                kept.setdefault(name, []).append(logits)
        chosen = choose(column, guided.double().numpy(), live[column])
        for q in range(codebooks):
            t = int(frame[column, q])
            if live[column, q]:
                codes[:, q, t] = torch.from_numpy(chosen[:, q])
            if 0 <= t < frames:
                fed[:, q, column + 1] = codes[:, q, t]
    return codes, {name: torch.stack(columns, 1) for name, columns in kept.items()}


def windowed(lm, condition, prompt, frames, guidance, choose, longest, stride):
    """audiocraft's loop past the trained length (`BaseGenModel._generate_tokens`): windows of at most `longest` frames,
    each `stride` frames on, its prompt the end of the one before. Column 0 of each window is its own; the noise of a
    column is that of the frames dropped so far plus the column within the window."""
    done, offset, windows = prompt, 0, []
    current = prompt
    while offset + current.shape[-1] < frames:
        length = min(frames - offset, longest)
        windows.append([offset, current.shape[-1], length])
        choose.offset = offset
        codes, _ = generate(lm, condition, current, length, guidance, choose)
        done = torch.cat([done, codes[:, :, current.shape[-1] :]], -1)
        current = codes[:, :, stride:]
        offset += stride
    assert done.shape[-1] == frames
    return done, windows


# ---------------------------------------------------------------- the same from Hugging Face's own loop


def generated_by_hf(model, frames, guidance, **inputs):
    """Greedy codes of `generate`, caught where it hands them to the codec."""
    caught = []

    class Codec:
        @staticmethod
        def decode(codes, audio_scales):
            caught.append(codes)
            return type("Decoded", (), {"audio_values": torch.zeros(codes.shape[1], 1, 1)})

    lm = model.decoder.config
    special = lm.vocab_size
    settings = model.generation_config
    settings.decoder_start_token_id = settings.pad_token_id = settings.bos_token_id = special
    codec, model._modules["audio_encoder"] = model.audio_encoder, None
    object.__setattr__(model, "audio_encoder", Codec)
    try:
        model.generate(do_sample=False, guidance_scale=guidance, max_new_tokens=frames + delays(lm)[-1], **inputs)
    finally:
        object.__delattr__(model, "audio_encoder")
        model._modules["audio_encoder"] = codec
    if lm.audio_channels == 1:
        return caught[0][0]
    return torch.stack(caught, 3).flatten(2, 3)[0]
