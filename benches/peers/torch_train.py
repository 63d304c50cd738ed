#!/usr/bin/env python3
"""The peer of training: a step of SAELens 5.3.2's arithmetic in torch, dense gradients and torch.optim.Adam.

    torch_train.py [--device cpu|cuda] [--dtype float32|bfloat16] [--threads N] [--steps N] [--batch N,N,...] [--width N]
                   [--features N] [--k N] [--fused] [--compile]

With `--dtype bfloat16` the forward and backward pass run under autocast, as SAELens has them; parameters and Adam's moments stay in
float32. `--compile` puts the loss and its gradients through torch.compile, Adam stays as it is.

Prints one JSON line for the environment and one a measurement: seconds of a step, the best and the median, and the best processor
time of all threads together, which tells a busy machine (far below threads * best) from a quiet one.
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
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--batch", default="64,4096")
parser.add_argument("--width", type=int, default=1024)
parser.add_argument("--features", type=int, default=32768)
parser.add_argument("--k", type=int, default=100)
parser.add_argument("--fused", action="store_true", help="Adam(fused=True)")
parser.add_argument("--compile", action="store_true", help="the loss through torch.compile")
args = parser.parse_args()

import torch


def finished():
    if args.device == "cuda":
        torch.cuda.synchronize()


def run(batch):
    w_enc = torch.nn.Parameter(torch.nn.init.kaiming_uniform_(torch.empty(args.width, args.features, device=args.device)))
    w_dec = torch.nn.Parameter(torch.nn.init.kaiming_uniform_(torch.empty(args.features, args.width, device=args.device)))
    b_enc = torch.nn.Parameter(torch.zeros(args.features, device=args.device))
    b_dec = torch.nn.Parameter(torch.zeros(args.width, device=args.device))
    parameters = [w_enc, b_enc, w_dec, b_dec]
    adam = torch.optim.Adam(parameters, lr=3e-4, betas=(0.0, 0.999), fused=args.fused or None)
    batches = [2 * torch.rand(batch, args.width, device=args.device) - 1 for _ in range(4)]

    def loss_of(x):
        # biases in the products' type: inductor makes one addmm of both, which knows one type (torch 2.8)
        pre = (x - b_dec) @ w_enc
        pre = pre + b_enc.to(pre.dtype)
        top = torch.topk(pre, k=args.k, dim=-1)
        codes = torch.zeros_like(pre).scatter(-1, top.indices, torch.relu(top.values))
        out = codes @ w_dec
        out = out + b_dec.to(out.dtype)
        return ((out - x) ** 2).sum(dim=-1).mean() + 1e-3 * codes.norm(p=1, dim=-1).mean()

    loss_of = torch.compile(loss_of, dynamic=False) if args.compile else loss_of
    half = args.dtype != "float32"

    def step(x):
        with torch.no_grad():
            w_dec.div_(w_dec.norm(dim=1, keepdim=True))
        with torch.autocast(args.device, getattr(torch, args.dtype), enabled=half):
            loss = loss_of(x)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()

    for x in batches:
        step(x)
    finished()
    times, processor = [], []
    for i in range(args.steps):
        start, used = time.perf_counter(), time.process_time()
        step(batches[i % len(batches)])
        finished()
        times.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    median = statistics.median(times)
    print(json.dumps({"job": "train step", "rows": batch, "width": args.width, "features": args.features, "k": args.k,
                      "best_s": round(min(times), 4), "median_s": round(median, 4), "steps_per_s": round(1 / median, 4),
                      "cpu_best_s": round(min(processor), 4),
                      "published_h": round(987071 * median / 3600, 2) if batch == 64 else None}), flush=True)


torch.set_num_threads(args.threads)
torch.manual_seed(0)
print(json.dumps({"device": args.device, "dtype": args.dtype, "compiled": args.compile, "torch": torch.__version__,
                  "threads": args.threads}), flush=True)
for size in args.batch.split(","):
    run(int(size))
