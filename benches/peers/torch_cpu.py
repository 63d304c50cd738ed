#!/usr/bin/env python3
"""The peer on the processor: Hugging Face transformers on torch, at musicgen-small's dimensions.

    torch_cpu.py [--threads N] [--repeat N] [--checkpoint DIR] [--seconds S]

Prints one JSON line for the environment and one a measurement: every time in seconds, the best and the median, and the
best processor time of all threads together, which tells a busy machine (far below threads * best) from a quiet one.
Weights are random, or those of `--checkpoint`, so that both sides can run the same ones. The same job as auscult's
capture: teacher-forced with null text, hooks on five layers, then EnCodec both ways. The environment is made by
`tests/golden/setup_ref_venv.sh`.
"""

import argparse
import json
import os
import statistics
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--repeat", type=int, default=5)
parser.add_argument("--checkpoint", metavar="DIR", help="an HF checkpoint directory")
parser.add_argument("--seconds", type=float, default=10.0)
parser.add_argument("--bf16", action="store_true", help="also the forward pass with bfloat16 weights")
args = parser.parse_args()

import torch
import transformers
from transformers import (EncodecConfig, MusicgenConfig, MusicgenDecoderConfig, MusicgenForConditionalGeneration,
                          T5Config)

HOOKED = (1, 5, 11, 17, 21)  # the layers that published SAEs of the small model read


def random_small():
    t5 = T5Config(vocab_size=32128, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12,
                  feed_forward_proj="relu")
    codec = EncodecConfig(target_bandwidths=[2.2], sampling_rate=32000, num_filters=64,
                          upsampling_ratios=[8, 5, 4, 4], codebook_size=2048, use_causal_conv=False, normalize=False,
                          use_conv_shortcut=False)
    config = MusicgenConfig.from_sub_models_config(t5, codec, MusicgenDecoderConfig())
    model = MusicgenForConditionalGeneration(config)
    for layer in model.audio_encoder.quantizer.layers:
        layer.codebook.embed.normal_()
    return model


def timed(name, job, **about):
    job()  # warm up: allocator, oneDNN's and MKL's own caches
    times, processor = [], []
    for _ in range(args.repeat):
        start, used = time.perf_counter(), time.process_time()
        job()
        times.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    best = min(times)
    print(json.dumps({"bench": name, **about, "best_s": round(best, 4), "median_s": round(statistics.median(times), 4),
                      "audio_seconds_per_second": round(args.seconds / best, 2),
                      "cpu_best_s": round(min(processor), 4), "all_s": [round(t, 4) for t in times]}), flush=True)


torch.set_num_threads(args.threads)
torch.manual_seed(0)
with torch.inference_mode():
    if args.checkpoint:
        model = MusicgenForConditionalGeneration.from_pretrained(args.checkpoint, dtype=torch.float32)
    else:
        model = random_small()
    model.eval()
    lm, codec = model.decoder, model.audio_encoder
    lm.set_attn_implementation("sdpa")
    rate = codec.config.sampling_rate
    samples = int(args.seconds * rate)
    frames = -(-samples // codec.config.hop_length)
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), None)
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__, "threads": args.threads,
                      "cpu": cpu, "cpu_capability": torch.backends.cpu.get_cpu_capability(),
                      "load_before": round(os.getloadavg()[0], 2), "seconds": args.seconds, "positions": frames + 1,
                      "d_model": lm.config.hidden_size, "layers": lm.config.num_hidden_layers}), flush=True)

    ids = torch.randint(0, lm.config.vocab_size, (lm.num_codebooks, frames + 1))
    kept = {}
    for layer in HOOKED:
        if layer < lm.config.num_hidden_layers:
            lm.model.decoder.layers[layer].register_forward_hook(
                lambda _m, _a, out, at=layer: kept.__setitem__(at, out[0].clone()))

    def forward(text):
        mask = torch.zeros(1, 1, dtype=torch.int64)
        return lm(input_ids=ids, encoder_hidden_states=text, encoder_attention_mask=None if text is None else mask,
                  use_cache=False)

    null = torch.zeros(1, 1, lm.config.hidden_size)
    timed("forward_null_text", lambda: forward(null), dtype="f32", note="as get_unconditional_inputs gives it")
    timed("forward_no_text", lambda: forward(None), dtype="f32", note="cross-attention skipped")

    wav = torch.randn(1, 1, samples) * 0.1
    timed("encodec_encode", lambda: codec.encode(wav), dtype="f32")
    codes = codec.encode(wav).audio_codes
    timed("encodec_decode", lambda: codec.decode(codes, [None]), dtype="f32")
    if args.bf16:
        lm.to(torch.bfloat16)
        timed("forward_null_text", lambda: forward(null.bfloat16()), dtype="bf16")
