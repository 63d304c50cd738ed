#!/usr/bin/env python3
"""The peer on a GPU: torch and Hugging Face transformers at the shapes that auscult is timed at.

    torch_gpu.py [--ours FILE.json]... [--out FILE.json] [--repeat N] [--no-compile] [--smoke]

Half-precision products (cuBLAS), causal attention (the best of SDPA's backends), the teacher-forced forward pass of
musicgen-small's decoder with forward hooks on five layers, and EnCodec's encoder; device time by CUDA events, the best of
several rows of launches. Weights are random. Prints a table, and the same as JSON into `--out`. Each `--ours` is what
`auscult bench --json` or `cargo bench --bench capture` printed; where both have a measurement of one name, the ratio of
speeds stands beside it: above 1, auscult is faster. `--smoke` runs everything at tiny sizes on the processor, to see that
it runs.

Needs torch 2.8 or newer and transformers 4.57 or newer.
"""

import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import EncodecConfig, EncodecModel, MusicgenDecoderConfig, MusicgenForCausalLM

HOOKED = (1, 5, 11, 17, 21)  # the layers that published SAEs of the small model read
MODELS = {"musicgen-small": (1024, 4096, 16), "musicgen-medium": (1536, 6144, 24), "musicgen-large": (2048, 8192, 32)}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--ours", metavar="FILE", action="append", default=[])
parser.add_argument("--out", metavar="FILE")
parser.add_argument("--repeat", type=int, default=5)
parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
parser.add_argument("--smoke", action="store_true")
args = parser.parse_args()

if args.smoke:
    device, half, rows, clips, frames = "cpu", torch.float32, 64, 2, 8
else:
    if not torch.cuda.is_available():
        sys.exit("error: torch finds no CUDA device; `--smoke` runs on the processor")
    device, half, rows, clips, frames = "cuda", torch.float16, 16384, 64, 500
hop = 640
results = []


def seconds(job, least=0.2):
    """Best device seconds of one call, of `--repeat` rows of calls that each take `least`."""
    job()
    job()
    count, best = 1, float("inf")
    while True:
        taken = row(job, count)
        if taken >= least or args.smoke or count >= 1 << 14:
            break
        count = max(count + 1, min(16 * count, int(1.2 * count * least / max(taken, 1e-6))))
    for _ in range(1 if args.smoke else args.repeat):
        best = min(best, row(job, count))
    return best / count


def row(job, count):
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(count):
            job()
        return time.perf_counter() - start
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    first.record()
    for _ in range(count):
        job()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) * 1e-3


def add(name, taken, unit, amount, **about):
    """`amount` of `unit` done in `taken` seconds."""
    results.append({"name": name, "us": taken * 1e6, "unit": unit, "rate": amount / taken, **about})
    print(f"torch  {name}: {taken * 1e6:.1f} us, {amount / taken:.4g} {unit}/s  {about or ''}", flush=True)


def rotating(make):
    """Values beyond the last cache, used one after another."""
    values, at = [make() for _ in range(4)], [0]

    def one():
        at[0] = (at[0] + 1) % len(values)
        return values[at[0]]

    return one


def products():
    for model, (width, inner, _) in MODELS.items():
        for part, cols, outs in [("attention projection", width, width), ("fc1", width, inner), ("fc2", inner, width)]:
            if args.smoke:
                cols, outs = cols // 32, outs // 32
            x = rotating(lambda cols=cols: torch.randn(rows, cols, device=device, dtype=half))
            weight = torch.randn(outs, cols, device=device, dtype=half)
            taken = seconds(lambda: F.linear(x(), weight))
            add(f"{model} {part}", taken, "TFLOP", 2e-12 * rows * cols * outs, rows=rows, dtype=str(half))


def attentions():
    backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
    if args.smoke:
        backends = [SDPBackend.MATH]
    for model in ("musicgen-small", "musicgen-large"):
        heads = MODELS[model][2]
        for length, steps in (("10 s", frames + 1), ("30 s", 3 * frames + 1)):
            make = lambda: [torch.randn(clips, heads, steps, 64, device=device, dtype=half) for _ in range(3)]
            qkv, best = rotating(make), None
            for backend in backends:
                try:
                    with sdpa_kernel(backend):
                        taken = seconds(lambda: F.scaled_dot_product_attention(*qkv(), is_causal=True))
                except RuntimeError as error:
                    print(f"       {backend.name} left out: {str(error).splitlines()[0]}", flush=True)
                    continue
                if best is None or taken < best[0]:
                    best = (taken, backend.name)
            if best is None:
                sys.exit(f"error: no backend of SDPA ran at {steps} positions")
            # two products over half of the pairs
            flops = clips * heads * 64 * 4 * steps * (steps + 1) / 2
            add(f"{model} attention over {length}", best[0], "TFLOP", flops * 1e-12, clips=clips, backend=best[1])


class Enough(Exception):
    """Ends a forward pass behind the deepest hook."""


def forwards():
    config = MusicgenDecoderConfig()  # the defaults are musicgen-small's
    if args.smoke:
        config = MusicgenDecoderConfig(hidden_size=64, ffn_dim=128, num_attention_heads=2)
    lm = MusicgenForCausalLM(config).to(device, half).eval()
    lm.set_attn_implementation("sdpa")
    ids = torch.randint(0, config.vocab_size, (clips * config.num_codebooks, frames + 1), device=device)
    kept, stop = {}, [False]

    def hook(at):
        def keep(_module, _inputs, output):
            hidden = output[0] if isinstance(output, tuple) else output
            kept[at] = hidden.clone()
            if stop[0] and at == HOOKED[-1]:
                raise Enough

        return keep

    for layer in HOOKED:
        lm.model.decoder.layers[layer].register_forward_hook(hook(layer))
    positions, about = clips * (frames + 1), {"clips": clips, "frames": frames, "dtype": str(half)}

    def forward(model=lm):
        model(input_ids=ids, use_cache=False)

    def stopped():
        stop[0] = True
        try:
            forward()
        except Enough:
            pass
        finally:
            stop[0] = False

    add("forward to logits with five hooks", seconds(forward), "position", positions, **about)
    assert sorted(kept) == list(HOOKED) and kept[1].shape == (clips, frames + 1, config.hidden_size), "hooks ran"
    add("forward to hook_layers.21, five hooks", seconds(stopped), "position", positions, **about)
    if args.no_compile:
        return
    try:
        kept.clear()
        compiled = torch.compile(lm)
        add("forward to logits with five hooks, compiled", seconds(lambda: forward(compiled)), "position", positions,
            **about)
        assert sorted(kept) == list(HOOKED), "hooks ran"
    except Exception as error:  # what a user would do: go without
        print(f"       torch.compile left out: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)


def codecs():
    # facebook/encodec_32khz
    config = EncodecConfig(target_bandwidths=[2.2], sampling_rate=32000, num_filters=64, upsampling_ratios=[8, 5, 4, 4],
                           codebook_size=2048, use_causal_conv=False, normalize=False, use_conv_shortcut=False)
    codec = EncodecModel(config).to(device).eval()
    for layer in codec.quantizer.layers:
        layer.codebook.embed.normal_()
    wav = torch.randn(clips, 1, frames * hop, device=device) * 0.1
    for name, tf32 in (("EnCodec encode", False), ("EnCodec encode with TF32", True)):
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        taken = seconds(lambda: codec.encode(wav))
        add(name, taken, "audio second", clips * frames * hop / 32000, clips=clips, tf32=tf32)


def ours(path):
    """Rates by name, of what either program printed."""
    rates, text = {}, open(path, encoding="utf-8").read()
    for line in filter(lambda line: line.startswith("{"), text.splitlines()):
        document = json.loads(line)
        for measured in document.get("lines", []):
            if measured.get("tflop_per_s"):
                rates[measured["why"]] = (measured["tflop_per_s"], measured["us"], "TFLOP")
        if "device_positions_per_s" in document:
            rates[document["job"]] = (document["device_positions_per_s"], 1e6 * document["device_s"], "position")
        elif "device_s" in document:
            rate = document["audio_s"] / document["device_s"]
            rates[document["job"]] = (rate, 1e6 * document["device_s"], "audio second")
    return rates


def main():
    torch.manual_seed(0)
    name = torch.cuda.get_device_name() if device == "cuda" else "processor"
    about = {"torch": torch.__version__, "transformers": transformers.__version__, "cuda": torch.version.cuda,
             "cudnn": torch.backends.cudnn.version() if device == "cuda" else None, "device": name}
    print(json.dumps(about), flush=True)
    with torch.inference_mode():
        products()
        attentions()
        forwards()
        codecs()
    mine = {}
    for path in args.ours:
        mine.update(ours(path))
    print(f"\n{'':50} {'torch':>14} {'auscult':>14} {'ratio':>7}  unit")
    for result in results:
        rate, rest = result["rate"], f"{'-':>14} {'-':>7}"
        if result["name"] in mine:
            result["ours_rate"], result["ours_us"], unit = mine[result["name"]]
            assert unit == result["unit"], f"{result['name']}: {unit}, expected {result['unit']}"
            # of one launch of one shape: the time, since operations beside the products are counted here and there
            same_shape = unit == "TFLOP"
            result["ratio"] = result["us"] / result["ours_us"] if same_shape else result["ours_rate"] / rate
            rest = f"{result['ours_rate']:14.4g} {result['ratio']:7.2f}"
        print(f"{result['name']:50} {rate:14.4g} {rest}  {result['unit']}/s")
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump({**about, "smoke": args.smoke, "results": results}, file, indent=1)


main()
