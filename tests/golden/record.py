"""What every script of goldens shares: inputs, the recorder of sites, a case's folder, models with their weights."""

import hashlib
import json
import os
import platform

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import MusicgenForConditionalGeneration, MusicgenMelodyConfig, MusicgenMelodyForConditionalGeneration

import procedural

STORED_TYPES = {None: None, "f16": torch.float16, "bf16": torch.bfloat16}


def noise_codes(seed, batch, codebooks, frames, vocab):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, vocab, (batch, codebooks, frames)))


def delayed(codes, delays, special):
    """audiocraft's pattern without the trailing steps (`keep_only_valid_steps`): [B, K, T] -> [B, K, T + 1]."""
    batch, codebooks, frames = codes.shape
    out = torch.full((batch, codebooks, frames + 1), special, dtype=codes.dtype)
    for k, delay in enumerate(delays):
        kept = max(0, frames - delay)
        out[:, k, 1 + delay : 1 + delay + kept] = codes[:, k, :kept]
    return out


class Sites:
    """Keeps what a decoder computes at each site, from `with Sites(decoder) as got:` on. Names as auscult spells them.

    A decoder whose text is a prefix (`MusicgenMelodyDecoder`) has no cross-attention: there `resid_mid` is what the
    feed-forward's norm reads."""

    def __init__(self, decoder):
        self.decoder, self.got, self.hooks = decoder, {}, []

    def before(self, module, site):
        self.hooks.append(module.register_forward_pre_hook(lambda _m, a: self.got.__setitem__(site, a[0].clone())))

    def after(self, module, site):
        def keep(_m, _a, out):
            self.got[site] = (out[0] if isinstance(out, tuple) else out).clone()

        self.hooks.append(module.register_forward_hook(keep))

    def __enter__(self):
        self.before(self.decoder.layers[0], "embed")
        for i, layer in enumerate(self.decoder.layers):
            self.before(layer, f"layers.{i}.resid_pre")
            self.after(layer.self_attn, f"layers.{i}.self_attn_out")
            if hasattr(layer, "encoder_attn"):
                self.before(layer.encoder_attn_layer_norm, f"layers.{i}.resid_mid")
                self.after(layer.encoder_attn, f"layers.{i}.cross_attn_out")
            else:
                self.before(layer.final_layer_norm, f"layers.{i}.resid_mid")
            self.after(layer.fc2, f"layers.{i}.mlp_out")
            self.after(layer, f"layers.{i}.resid_post")
        self.after(self.decoder.layer_norm, "final_norm")
        return self.got

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


def error(got, gold):
    """[relative L2 error, largest element error over the RMS of the gold]."""
    gap, gold = (got.double() - gold).abs(), gold.double()
    rms = float(gold.pow(2).mean().sqrt())
    if rms == 0:
        return [float(gap.max()), float(gap.max())]
    return [float(f"{float(gap.pow(2).mean().sqrt()) / rms:.3g}"), float(f"{float(gap.max()) / rms:.3g}")]


class Case:
    """A folder of expectations. The tensors are written as f32 (one rounding of float64) or i32."""

    MANIFEST, EXPECTED = "manifest.json", "expected.safetensors"

    def __init__(self, name, kind, about):
        self.name, self.tensors = name, {}
        self.manifest = {
            "case": name, "kind": kind, "about": about,
            "versions": {"python": platform.python_version(), "torch": torch.__version__.split("+")[0],
                         "transformers": transformers.__version__, "numpy": np.__version__},
            "weights_sha256": None, "expected_sha256": None,
            "runs": {}, "aliases": {}, "zeros": {}, "hf_f32_error": {}, "notes": {}, "weights": {},
        }
        self.config = None

    def put(self, name, tensor, f32=None):
        if tensor.dtype.is_floating_point:
            assert tensor.isfinite().all(), name
            self.tensors[name] = tensor.float().contiguous()
            if f32 is not None:
                self.manifest["hf_f32_error"][name] = error(f32, tensor)
        else:
            self.tensors[name] = tensor.to(torch.int32).contiguous()

    def write(self, out):
        folder = os.path.join(out, self.name)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, self.EXPECTED)
        save_file(self.tensors, path)
        os.chmod(path, 0o644)  # safetensors makes it private to its owner
        with open(path, "rb") as f:
            self.manifest["expected_sha256"] = hashlib.sha256(f.read()).hexdigest()
        if self.config is not None:
            with open(os.path.join(folder, "config.json"), "w") as f:
                f.write(self.config.to_json_string(use_diff=True))
        with open(os.path.join(folder, self.MANIFEST), "w") as f:
            f.write(compact(self.manifest) + "\n")
        total = sum(os.path.getsize(os.path.join(folder, n)) for n in (self.MANIFEST, self.EXPECTED))
        print(f"{self.name}: {len(self.tensors)} tensors, {total / 1e3:.0f} kB", flush=True)


def compact(manifest):
    """JSON with one line an entry, two levels deep."""
    lines = []
    for key, value in manifest.items():
        if isinstance(value, dict) and value:
            inner = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}"


def named(config, architecture):
    config.architectures, config.dtype = [architecture], "float32"
    return config


def musicgen(config, rounding=None):
    """A model with its procedural weights, what rebuilds them, and their SHA-256."""
    melody = isinstance(config, MusicgenMelodyConfig)
    architecture = MusicgenMelodyForConditionalGeneration if melody else MusicgenForConditionalGeneration
    model = architecture(named(config, architecture.__name__)).eval()
    spec, digest = procedural.fill(model, config.text_encoder, STORED_TYPES[rounding])
    return model, spec, digest
