#!/usr/bin/env python3
"""Golden outputs of MusicGen's decoder and of EnCodec, from Hugging Face transformers run in float64.
Text and generation are `make_generation_fixtures.py`'s.

    make_fixtures.py --out tests/golden                  every committed case (see cases.py)
    make_fixtures.py --check tests/golden                run them again, compare with what is there
    make_fixtures.py --out DIR --cases small             musicgen-small's dimensions, chosen positions; not committed
    ... --checkpoint                                     also save each model as an HF checkpoint directory

A case is a folder: `config.json` as `save_pretrained` writes it, `manifest.json` (what rebuilds the weights, what the
runs were, how far HF's own float32 is from float64) and `expected.safetensors` (float64 results rounded once to f32;
integers as i32). `setup_ref_venv.sh` makes the environment: python 3.11, torch 2.8.0 on the CPU, transformers 4.57.6.

Tensors of a decoder run `b{batch}t{frames}`: `codes` [batch, codebooks, frames], `delayed` [batch, codebooks, steps],
sites [batch, steps, d_model], `logits` [batch, steps, codebooks, vocab]; steps = frames + 1, kept positions only
where the manifest lists `positions`. Text is null, as HF's `get_unconditional_inputs` gives it.

Tensors of a codec run `n{samples}`: `wav` [samples], `latents` [hidden, frames], `codes` [codebooks, frames] for the
largest bandwidth, `margins` [codebooks, frames], `quantized` [hidden, frames] and `audio` [samples] for the first
`codebooks` of the run; `encoder.layers.N` and `decoder.layers.N` [channels, time] where the manifest says so.
A margin is (d2 - d1) / d2 of the distances to the two nearest codes: near 0, float32 may choose either.
"""

import argparse
import json
import os
import sys
import tempfile

sys.dont_write_bytecode = True

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import EncodecModel
from transformers.models.musicgen.modeling_musicgen import MusicgenSinusoidalPositionalEmbedding

import cases
import procedural
from record import Case, Sites, delayed, musicgen, named, noise_codes

torch.set_grad_enabled(False)


# ---------------------------------------------------------------- inputs


def wave(samples, seed):
    """Two partials and noise, at any rate."""
    i, r = np.arange(samples), np.random.default_rng(seed)
    x = 0.3 * np.sin(0.0432 * i) + 0.2 * np.sin(0.2886 * i + 1) + 0.05 * r.standard_normal(samples)
    return torch.from_numpy(x.astype(np.float32))[None, None]


# ---------------------------------------------------------------- one run of a model, every site recorded


def run_decoder(model, codes):
    """Teacher-forced, null text. Site names as auscult spells them."""
    lm, decoder = model.decoder, model.decoder.model.decoder
    lm.set_attn_implementation("sdpa")  # the eager mask builder overflows in float64
    dtype = lm.lm_heads[0].weight.dtype
    batch, codebooks, _ = codes.shape
    delays = [k // lm.config.audio_channels for k in range(codebooks)]
    ids = delayed(codes, delays, lm.config.vocab_size)
    text = torch.zeros(batch, 1, model.config.text_encoder.d_model, dtype=dtype)
    mask = torch.zeros(batch, 1, dtype=torch.int64)
    projected = model.enc_to_dec_proj(text) if hasattr(model, "enc_to_dec_proj") else text
    with Sites(decoder) as got:
        out = lm(input_ids=ids.reshape(batch * codebooks, -1), encoder_hidden_states=projected * mask[..., None],
                 encoder_attention_mask=mask, use_cache=False).logits
    got["logits"] = out.view(batch, codebooks, -1, lm.config.vocab_size).transpose(1, 2).contiguous()
    return got, ids, delays


def nearest(quantizer, latents):
    """The RVQ chain in the tensors' own type: codes and margins, [codebooks, frames]."""
    residual, codes, margins = latents[0].t(), [], []
    for layer in quantizer.layers:
        table = layer.codebook.embed
        distance = (residual[:, None, :] - table[None]).pow(2).sum(-1).sqrt()
        two = distance.topk(2, dim=1, largest=False)
        codes.append(two.indices[:, 0])
        margins.append((two.values[:, 1] - two.values[:, 0]) / two.values[:, 1])
        residual = residual - table[codes[-1]]
    return torch.stack(codes), torch.stack(margins)


def run_codec(codec, wav, default, codes=None, layers=False):
    """Encode, then decode the first `default` rows of `codes` (of the codes found, when None)."""
    got, hooks = {}, []
    if layers:
        for side in ("encoder", "decoder"):
            for i, layer in enumerate(getattr(codec, side).layers):
                hooks.append(layer.register_forward_hook(
                    lambda _m, _a, o, key=f"{side}.layers.{i}": got.__setitem__(key, o[0].clone())))
    latents = codec.encoder(wav)
    found = codec.quantizer.encode(latents, codec.config.target_bandwidths[-1])[:, 0]
    chosen, margins = nearest(codec.quantizer, latents)
    first = codec.encode(wav).audio_codes[0, 0]
    assert first.shape[0] == default and torch.equal(first, found[:default]), "the chain is greedy"
    if wav.dtype == torch.float64:
        assert torch.equal(chosen, found), "both formulas choose the same codes"
    used = found if codes is None else codes
    quantized = codec.quantizer.decode(used[:default, None])
    audio = codec.decode(used[None, None, :default], [None]).audio_values
    for hook in hooks:
        hook.remove()
    got.update(latents=latents[0], codes=found, margins=margins, quantized=quantized[0], audio=audio[0, 0])
    return got


def add_decoder_run(case, run, f32, f64, codes, stored=None, only=None, positions=None):
    """`only` keeps some sites, `positions` some steps."""
    gold, ids, delays = f64
    near = f32[0]
    layers = sum(1 for s in gold if s.endswith(".resid_pre"))
    case.manifest["runs"][run] = {
        "kind": "decoder", "batch": codes.shape[0], "frames": codes.shape[2], "steps": codes.shape[2] + 1,
        "codebooks": codes.shape[1], "delays": delays, "weights": stored or "f32", "positions": positions}
    case.put(f"{run}.codes", codes)
    case.put(f"{run}.delayed", ids)
    keep = (lambda t: t[:, positions]) if positions else (lambda t: t)
    for i in range(layers):
        before = "embed" if i == 0 else f"layers.{i - 1}.resid_post"
        assert torch.equal(gold[f"layers.{i}.resid_pre"], gold[before])
        assert not gold[f"layers.{i}.cross_attn_out"].any(), "null text contributes exactly nothing"
        if only is None:
            case.manifest["aliases"][f"{run}.layers.{i}.resid_pre"] = f"{run}.{before}"
            case.manifest["zeros"][f"{run}.layers.{i}.cross_attn_out"] = list(keep(gold["embed"]).shape)
    for site, tensor in gold.items():
        if site.endswith((".resid_pre", ".cross_attn_out")) or (only is not None and site not in only):
            continue
        case.put(f"{run}.{site}", keep(tensor), keep(near[site]))


def add_codec_run(case, run, codec32, codec64, wav, default, stored=None, layers=False):
    gold = run_codec(codec64, wav.double(), default, layers=layers)
    near = run_codec(codec32, wav, default, codes=gold["codes"], layers=layers)
    case.manifest["runs"][run] = {
        "kind": "codec", "samples": wav.shape[-1], "frames": gold["codes"].shape[1],
        "codebooks": default, "all_codebooks": gold["codes"].shape[0], "weights": stored or "f32", "layers": layers,
        "hf_f32_codes_differ": int((gold["codes"] != near["codes"]).sum()),
        "min_margin": float(f"{float(gold['margins'].min()):.3g}")}
    case.put(f"{run}.wav", wav[0, 0])
    for name, tensor in gold.items():
        case.put(f"{run}.{name}", tensor, None if name in ("codes", "margins") else near[name])


def save_checkpoint(model, out, name):
    folder = os.path.join(out, name, "checkpoint")
    model.save_pretrained(folder, safe_serialization=True)
    print(f"{name}: checkpoint in {folder}", flush=True)


# ---------------------------------------------------------------- cases


def decoder_case(name, out, checkpoint):
    spec = cases.DECODERS[name]
    case = Case(name, "musicgen", spec["about"])
    for stored in (None, *spec.get("stored", ())):
        config = cases.musicgen_config(spec)
        model, weights, digest = musicgen(config, stored)
        if stored is None:
            case.config = config
            case.manifest["weights"], case.manifest["weights_sha256"] = weights, digest
            if checkpoint:
                save_checkpoint(model, out, name)
        double = musicgen(cases.musicgen_config(spec), stored)[0].double()
        prefix = f"{stored}." if stored else ""
        last = config.decoder.num_hidden_layers - 1
        only = {"embed", f"layers.{last}.resid_post", "logits"} if stored else None
        for seed, (batch, frames) in enumerate(spec["runs"] if not stored else [(1, 17)]):
            codes = noise_codes(7 + seed, batch, spec["codebooks"], frames, spec["vocab"])
            add_decoder_run(case, f"{prefix}b{batch}t{frames}", run_decoder(model, codes), run_decoder(double, codes),
                            codes, stored, only)
        if spec.get("real_codec"):
            for samples in (6400, 6523, 641, 5) if not stored else (641,):
                add_codec_run(case, f"{prefix}n{samples}", model.audio_encoder, double.audio_encoder,
                              wave(samples, samples), spec["codebooks"], stored, layers=not stored and samples == 641)
    case.write(out)


def codec_case(name, out, checkpoint):
    spec = cases.CODECS[name]
    case = Case(name, "encodec", spec["about"])
    config = named(cases.codec_config(spec), "EncodecModel")
    model, double = EncodecModel(config).eval(), EncodecModel(config).eval()
    case.config = config
    case.manifest["weights"], case.manifest["weights_sha256"] = procedural.fill(model)
    procedural.fill(double)
    double = double.double()
    for samples in spec["lengths"]:
        add_codec_run(case, f"n{samples}", model, double, wave(samples, samples), spec["codebooks"][0],
                      layers=samples == spec["layers_at"])
    if checkpoint:
        save_checkpoint(model, out, name)
    case.write(out)


def real_case(name, out, checkpoint):
    """The published dimensions: one 10 s forward, one codec second, ten codec seconds."""
    config = cases.real_config(name)
    case = Case(name, "musicgen", f"musicgen-{name}'s dimensions, unconditional, chosen positions")
    case.config = config
    model, weights, digest = musicgen(config)
    case.manifest["weights"], case.manifest["weights_sha256"] = weights, digest
    if checkpoint:
        save_checkpoint(model, out, name)
    codes = noise_codes(7, 1, 4, 500, 2048)
    near = run_decoder(model, codes)
    lengths = (32000, 320000)
    near_codec = {n: run_codec(model.audio_encoder, wave(n, n), 4) for n in lengths}
    model.double()  # in place: the two copies would not fit side by side
    gold = run_decoder(model, codes)
    add_decoder_run(case, "b1t500", near, gold, codes, positions=[0, 1, 2, 17, 100, 250, 499, 500])
    codec = model.audio_encoder
    for n in lengths:
        run, wav = f"n{n}", wave(n, n)
        gold = run_codec(codec, wav.double(), 4)
        case.manifest["runs"][run] = {
            "kind": "codec", "samples": n, "frames": gold["codes"].shape[1], "codebooks": 4, "all_codebooks": 4,
            "weights": "f32", "layers": False,
            "hf_f32_codes_differ": int((gold["codes"] != near_codec[n]["codes"]).sum()),
            "min_margin": float(f"{float(gold['margins'].min()):.3g}")}
        case.put(f"{run}.wav", wav[0, 0])
        same = bool((gold["codes"] == near_codec[n]["codes"]).all())
        for key, tensor in gold.items():
            comparable = key == "latents" or (same and key in ("quantized", "audio"))
            case.put(f"{run}.{key}", tensor, near_codec[n][key] if comparable else None)
    case.write(out)


# ---------------------------------------------------------------- tables


def exact_positions(rows, d_model):
    half = d_model // 2
    phase = rows.double()[:, None] / 10000.0 ** (torch.arange(half).double() / (half - 1))[None]
    return torch.cat([phase.cos(), phase.sin()], 1)


def audiocraft_positions(rows, d_model, autocast):
    """`create_sin_embedding` (audiocraft/modules/transformer.py) as it runs on CUDA with float16 weights, where the
    dtype of `x` is float16. Each line names its rounding:

        positions = positions.to(f16)                                  round to nearest even; 65520 and above are inf
        adim      = arange(half, f16)                                  exact below 2049
        exponent  = adim / (half - 1)        -> f16                    f32 quotient (CUDA: times the f32 reciprocal; the
                                                                       same f16 for every d_model here), rounded to f16
        base      = full([], 10000, f16)                               exact
        period    = base ** exponent         -> f16: f32 pow, rounded; autocast: f32, since `pow` is on CUDA
                                                autocast's float32 list (ATen/autocast_mode.h)
        phase     = positions / period       -> f16: f32 quotient, rounded; autocast: f32, promoted by `period`
        cos, sin                             -> f16: of the f16 phase, in f32, rounded; autocast: f32
    """
    half = d_model // 2
    positions = rows.to(torch.float16)
    adim = torch.arange(half, dtype=torch.float16)
    exponent = adim / (half - 1)
    reciprocal = torch.tensor(1.0) / torch.tensor(float(half - 1))
    assert torch.equal(exponent, (adim.float() * reciprocal).half())
    base = torch.full([], 10000, dtype=torch.float16)
    period = base.float() ** exponent.float()
    if not autocast:
        period = period.half()
    phase = positions[:, None] / period[None]
    assert phase.dtype == (torch.float32 if autocast else torch.float16)
    return torch.cat([phase.cos(), phase.sin()], 1)


def tables_case(out):
    case = Case("tables", "tables", "sinusoidal positions in three modes; activation functions")
    modes = {
        # HF's table is float32 whatever the model's type, and any length.
        "f32": lambda rows, d: MusicgenSinusoidalPositionalEmbedding(int(rows.max()) + 1, d).weights[rows],
        "audiocraft-f16": lambda rows, d: audiocraft_positions(rows, d, autocast=False),
        "audiocraft-f16-autocast": lambda rows, d: audiocraft_positions(rows, d, autocast=True),
    }
    rows = torch.tensor([0, 1, 2, 17, 499, 500, 1503, 2047, 2049, 4095, 8191, 30001])
    case.put("positions.rows", rows)
    widths = {"f32": (6, 128, 130, 1024, 1536, 2048), "audiocraft-f16": (128, 1024, 2048),
              "audiocraft-f16-autocast": (128, 1024, 2048)}
    for mode, table in modes.items():
        for d_model in widths[mode]:
            case.put(f"positions.{mode}.{d_model}", table(rows, d_model))
    case.manifest["notes"]["positions"] = (
        "f32 and autocast entries carry the f32 rounding of the frequency, so allow 3 * 2^-24 * position + 2^-22; "
        "f16 entries are exact f16 values, where one step of the f16 phase may differ")
    # What the modes do to a whole range, for width 1024: [mode, first, last, distinct rows, mean cosine similarity to
    # the exact embedding, largest error].
    ranges = []
    for mode in modes:
        for first, last in ((0, 500), (501, 1500), (1501, 2048), (2049, 4095), (8000, 8999), (30000, 30999)):
            span = torch.arange(first, last + 1)
            got, exact = modes[mode](span, 1024).double(), exact_positions(span, 1024)
            cosine = torch.nn.functional.cosine_similarity(got, exact, dim=1).mean()
            ranges.append([mode, first, last, len(torch.unique(got, dim=0)), round(float(cosine), 5),
                           float(f"{float((got - exact).abs().max()):.4g}")])
    case.manifest["notes"]["position_ranges_1024"] = ranges

    x = torch.cat([torch.linspace(-12, 12, 2001), torch.tensor([0.0, -0.0, 1e-20, -1e-20, 1e-4, -1e-4, 40.0, -40.0])])
    case.put("activation.x", x)
    gold = x.double()
    case.put("activation.gelu", torch.nn.functional.gelu(gold), torch.nn.functional.gelu(x))
    case.put("activation.elu", torch.nn.functional.elu(gold), torch.nn.functional.elu(x))
    case.manifest["notes"]["gelu"] = "HF's ACT2FN['gelu'] is the exact erf form, not tanh's"
    case.write(out)


# ---------------------------------------------------------------- command line


COMMITTED = [*cases.DECODERS, *cases.CODECS, "tables"]


def make(names, out, checkpoint):
    for name in names:
        if name in cases.DECODERS:
            decoder_case(name, out, checkpoint)
        elif name in cases.CODECS:
            codec_case(name, out, checkpoint)
        elif name in cases.REAL_DECODERS:
            real_case(name, out, checkpoint)
        elif name == "tables":
            tables_case(out)
        else:
            sys.exit(f"unknown case `{name}`: expected one of {', '.join([*COMMITTED, *cases.REAL_DECODERS])}")


def check(names, committed):
    """Fails where a fresh run differs from the committed one by more than float64 can on another processor."""
    wrong = []
    with tempfile.TemporaryDirectory() as fresh:
        make(names, fresh, checkpoint=False)
        for name in names:
            new, old = (load_file(os.path.join(d, name, "expected.safetensors")) for d in (fresh, committed))
            if new.keys() != old.keys():
                wrong.append(f"{name}: tensors differ: {sorted(new.keys() ^ old.keys())}")
                continue
            for key, a in new.items():
                b = old[key]
                # One unit in the last place of f32; the f32 tables come from the processor's own exp and pow.
                scale = 1e-3 if key.startswith("positions.") else 2e-7 * max(1.0, float(b.abs().max()))
                if a.shape != b.shape or a.dtype != b.dtype or float((a.double() - b.double()).abs().max()) > scale:
                    wrong.append(f"{name}: `{key}` differs")
            manifests = []
            for folder in (fresh, committed):
                with open(os.path.join(folder, name, "manifest.json")) as f:
                    manifests.append(json.load(f))
                for run in manifests[-1]["runs"].values():
                    run.pop("hf_f32_codes_differ", None), run.pop("min_margin", None)  # these follow the processor
            for key in ("weights", "weights_sha256", "runs", "aliases", "zeros"):
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
    parser.add_argument("--checkpoint", action="store_true", help="also save each model as an HF checkpoint directory")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    names = args.cases.split(",")
    if args.check:
        check(names, args.check)
    else:
        make(names, args.out, args.checkpoint)


if __name__ == "__main__":
    main()
