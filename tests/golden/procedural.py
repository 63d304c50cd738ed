"""Weights that need no file: every value follows from its tensor's name.

    w[i] = (u(i) * 2 - 1) * amp + mean,   u(i) = (splitmix64(fnv1a64(name) + (i + 1) * golden) >> 40) * 2^-24

in float32, one rounding an operation, nothing fused, so that another language rebuilds each weight bit for bit from
the name, the shape and the pair (mean, amp) that `manifest.json` lists (`tests/common/golden.rs` does).
"""

import hashlib
import math

import numpy as np
import torch

MASK64 = (1 << 64) - 1

# The names that files carry on the hub, from those that torch's parametrizations give.
PUBLISHED = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}


def published(name):
    for new, old in PUBLISHED.items():
        name = name.replace(new, old)
    return name


def fnv1a64(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK64
    return h


def uniform(name, n):
    """n float32 values in [0, 1): splitmix64's finaliser over a counter that starts at fnv1a64(name)."""
    with np.errstate(over="ignore"):
        z = np.arange(1, n + 1, dtype=np.uint64)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(fnv1a64(name))
        z ^= z >> np.uint64(30)
        z *= np.uint64(0xBF58476D1CE4E5B9)
        z ^= z >> np.uint64(27)
        z *= np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    z >>= np.uint64(40)
    return z.astype(np.float32) * np.float32(2.0**-24)


def tensor(name, shape, mean, amp):
    n = int(np.prod(shape)) if len(shape) else 1
    w = uniform(name, n)
    w *= np.float32(2)
    w -= np.float32(1)
    w *= np.float32(amp)
    w += np.float32(mean)
    return torch.from_numpy(w.reshape(shape))


def amp_of_std(std):
    """Half-width of the uniform distribution with this standard deviation."""
    return std * math.sqrt(3.0)


def rule(name, shape, transposed_kernels, t5):
    """(mean, amp) of one tensor, or None for what is not a weight. Keeps activations near unit scale."""
    if name.endswith(("kernel_size", "stride", "padding_total", "inited", "cluster_size", "embed_avg")):
        return None
    if name.endswith("embed_positions.weights"):
        return None
    if "audio_encoder" in name or name.startswith(("encoder.layers", "decoder.layers", "quantizer")):
        if name.endswith("weight_g"):
            kernel = transposed_kernels.get(name.removesuffix(".weight_g"))
            gain = math.sqrt(kernel) / 2 if kernel else 1.0
            return gain, 0.2 * gain
        if name.endswith("weight_v"):
            return 0.0, 1.0
        if ".lstm." in name:
            return 0.0, 1.0 / math.sqrt(shape[0] // 4)
        if name.endswith("codebook.embed"):
            depth = int(name.split("layers.")[-1].split(".")[0])
            return 0.0, 1.2 / (1 + depth)
        if name.endswith("bias"):
            return 0.0, 0.05
    if "text_encoder" in name:
        if "layer_norm" in name:
            return 1.0, 0.2
        if "relative_attention_bias" in name:
            return 0.0, 1.0
        if "embed_tokens" in name or "shared" in name:
            return 0.0, amp_of_std(1.0)
        if name.endswith(".q.weight"):
            return 0.0, amp_of_std((t5.d_model * t5.d_kv) ** -0.5)
        return 0.0, amp_of_std(shape[1] ** -0.5)
    if "layer_norm" in name:
        return (1.0, 0.2) if name.endswith("weight") else (0.0, 0.1)
    if "embed_tokens" in name:
        return 0.0, amp_of_std(0.5)
    if name.endswith("enc_to_dec_proj.bias"):
        return 0.0, 0.1
    if len(shape) == 2:
        return 0.0, amp_of_std(shape[1] ** -0.5)
    raise KeyError(name)


def short(x):
    """The shortest decimal that is this float32, as a Python float."""
    x = np.float32(x)
    decimal = float(str(x))
    assert np.float32(decimal) == x
    return decimal


def fill(model, t5=None, rounding=None):
    """Fills a model in place. Returns what rebuilds it: {published name: [shape, mean, amp, (hash name)]} and the
    SHA-256 of all values as little-endian float32, in that order.

    `rounding` passes every value through float16 or bfloat16, as a checkpoint stored in that type would.
    """
    kernels = {
        name: m.kernel_size[0] for name, m in model.named_modules() if isinstance(m, torch.nn.ConvTranspose1d)
    }
    spec, digest = {}, hashlib.sha256()
    for raw, held in model.state_dict().items():
        name, shape = published(raw), list(held.shape)
        drawn = rule(name, shape, kernels, t5)
        if drawn is None:
            continue
        # `shared` and `encoder.embed_tokens` are one tensor under two names; files hold either.
        tied = "text_encoder.encoder.embed_tokens.weight"
        if name == tied:
            continue
        hashed = tied if name == "text_encoder.shared.weight" else name
        mean, amp = short(drawn[0]), short(drawn[1])
        values = tensor(hashed, shape, mean, amp)
        digest.update(values.numpy().astype("<f4").tobytes())
        held.copy_(values.to(rounding).float() if rounding else values)
        spec[name] = [shape, mean, amp] + ([hashed] if hashed != name else [])
    return spec, digest.hexdigest()
