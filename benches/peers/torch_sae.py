#!/usr/bin/env python3
"""The peer of the encoder of sparse autoencoders: a linear layer and a top-k in torch.

    torch_sae.py [--device cpu|cuda] [--dtype float32|bfloat16] [--threads N] [--repeat N] [--rows N] [--width N]
                 [--features N] [--k N] [--compile]

Prints one JSON line for the environment and one a measurement: every time in seconds, the best and the median, and the best
processor time of all threads together, which tells a busy machine (far below threads * best) from a quiet one.
"""

import argparse
import json
import os
import statistics
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--device", default="cpu")
parser.add_argument("--dtype", default="float32")
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--repeat", type=int, default=5)
parser.add_argument("--rows", type=int, default=512)
parser.add_argument("--width", type=int, default=1024)
parser.add_argument("--features", type=int, default=32768)
parser.add_argument("--k", type=int, default=100)
parser.add_argument("--compile", action="store_true", help="the encoder through torch.compile")
args = parser.parse_args()

import torch


def finished():
    if args.device == "cuda":
        torch.cuda.synchronize()


def timed(name, job):
    job()  # warm up
    finished()
    times, processor = [], []
    for _ in range(args.repeat):
        start, used = time.perf_counter(), time.process_time()
        job()
        finished()
        times.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    print(json.dumps({"job": name, "rows": args.rows, "width": args.width, "features": args.features, "k": args.k,
                      "best_s": round(min(times), 4), "median_s": round(statistics.median(times), 4),
                      "rows_per_s": round(args.rows / min(times)), "cpu_best_s": round(min(processor), 4)}), flush=True)


def encode(x, weight, bias):
    values, indices = torch.topk(torch.nn.functional.linear(x, weight, bias), args.k)
    return torch.relu(values), indices


torch.set_num_threads(args.threads)
torch.manual_seed(0)
with torch.inference_mode():
    noise = lambda *shape: (2 * torch.rand(*shape) - 1).to(args.device, getattr(torch, args.dtype))
    x, weight, bias = noise(args.rows, args.width), noise(args.features, args.width), noise(args.features)
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), "device": args.device,
                      "dtype": args.dtype, "compiled": args.compile, "cpu": torch.backends.cpu.get_cpu_capability()}), flush=True)
    encoder = torch.compile(encode) if args.compile else encode
    timed("encode", lambda: encoder(x, weight, bias))
    timed("product alone", lambda: torch.nn.functional.linear(x, weight, bias))
