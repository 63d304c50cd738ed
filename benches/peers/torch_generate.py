#!/usr/bin/env python3
"""The peer of music out: Hugging Face transformers on torch, `generate` at musicgen-small's dimensions.

    torch_generate.py [--device cpu|cuda] [--dtype f32|f16|bf16] [--threads N] [--repeat N] [--checkpoint DIR]
                      [--seconds S] [--takes N,N,...]

Prints one JSON line for the environment and one a measurement. A step is one column of the delay pattern for every take.
The same job as `cargo bench --bench generate`: 12 tokens of text, guidance 3, the 250 best codes, no codec (its decoder
gives silence here); what the text encoder takes once is measured beside it and is not counted. Weights are random, or
those of `--checkpoint`, so that both sides can run the same ones. `tests/golden/setup_ref_venv.sh` makes the environment.
"""

import argparse
import json
import os
import statistics
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--device", default="cpu")
parser.add_argument("--dtype", default="f32", choices=("f32", "f16", "bf16"))
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--repeat", type=int, default=3)
parser.add_argument("--checkpoint", metavar="DIR", help="an HF checkpoint directory")
parser.add_argument("--seconds", type=int, default=10)
parser.add_argument("--takes", default="1,8")
args = parser.parse_args()

import torch
import transformers
from transformers import (EncodecConfig, MusicgenConfig, MusicgenDecoderConfig, MusicgenForConditionalGeneration,
                          T5Config)

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
TOKENS = 12


def random_small():
    t5 = T5Config(vocab_size=32128, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12,
                  feed_forward_proj="relu")
    codec = EncodecConfig(target_bandwidths=[2.2], sampling_rate=32000, num_filters=64,
                          upsampling_ratios=[8, 5, 4, 4], codebook_size=2048, use_causal_conv=False, normalize=False,
                          use_conv_shortcut=False)
    config = MusicgenConfig.from_sub_models_config(t5, codec, MusicgenDecoderConfig())
    return MusicgenForConditionalGeneration(config)


def clock(job):
    if args.device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    job()
    if args.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


torch.set_num_threads(args.threads)
torch.manual_seed(0)
with torch.inference_mode():
    if args.checkpoint:
        model = MusicgenForConditionalGeneration.from_pretrained(args.checkpoint)
    else:
        model = random_small()
    model.to(device=args.device, dtype=DTYPES[args.dtype]).eval()
    model.decoder.set_attn_implementation("sdpa")
    silence = transformers.models.encodec.modeling_encodec.EncodecDecoderOutput(torch.zeros(1, 1, 640))
    model.audio_encoder.decode = lambda codes, **kw: silence
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__, "threads": args.threads,
                      "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
                      "cpu_capability": torch.backends.cpu.get_cpu_capability(), "dtype": args.dtype,
                      "load_before": round(os.getloadavg()[0], 2), "seconds": args.seconds}), flush=True)
    lag = model.decoder.num_codebooks - 1 if model.decoder.config.audio_channels == 1 else \
        model.decoder.num_codebooks // 2 - 1
    steps = 50 * args.seconds + lag
    for takes in (int(n) for n in args.takes.split(",")):
        ids = torch.randint(3, 30_000, (takes, TOKENS), device=args.device)
        mask = torch.ones_like(ids)
        text = min(clock(lambda: model.text_encoder(input_ids=ids, attention_mask=mask)) for _ in range(3))
        for job, guidance in (("text without guidance", None), ("guided by text", 3.0)):
            fed = []

            def count(_module, inputs, kwargs, _output):
                fed.append(1)

            def play():
                # `max_length` counts the special column that comes first
                model.generate(input_ids=ids, attention_mask=mask, do_sample=True, top_k=250,
                               guidance_scale=guidance, max_length=steps + 1, min_length=steps + 1)

            hook = model.decoder.register_forward_hook(count, with_kwargs=True)
            play()
            hook.remove()
            times = [clock(play) - text for _ in range(args.repeat)]
            best = min(times)
            print(json.dumps({"job": job, "takes": takes, "steps": len(fed), "best_s": round(best, 4),
                              "median_s": round(statistics.median(times), 4),
                              "ms_a_step": round(1e3 * best / len(fed), 3), "steps_per_s": round(len(fed) / best, 3),
                              "times_real_time": round(takes * args.seconds / best, 4), "text_s": round(text, 4)}),
                  flush=True)
