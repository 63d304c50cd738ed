#!/usr/bin/env python3
"""Golden top-k encodings of random autoencoders of odd sizes, of rows that are hard on a selection, by torch in float64.

    make_encode_fixtures.py --out tests/golden/sae-encode        every case below, and SHA256SUMS
    make_encode_fixtures.py --check tests/golden/sae-encode      make them again, compare bytes

A case is one file: `rows` [rows, width], `weight` [features, width], `bias` [features], `k` [1]; `pre` [rows, features], what
float64 makes of x W^T + bias, in float32; `indices`, `values` [rows, k], by value, then index, 0 behind the last value above 0,
NaN and index 0 in a row that is not a number; `exact` [rows], 1 where float32 sums have no rounding in any order, so that indices
are the same everywhere.

The first columns of the weight steer: column 0 rises with the feature, so that a row along it offers every feature a better one
than all before; column 1 is below 0 and column 2 is 1 everywhere; column 3 is above 0 for two features alone. In `many-rows`, which
is large enough for the processor's products of whole numbers, they are as small as the others.
"""

import argparse
import hashlib
import os
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import save_file

# name: (width, features, k, whether there is a bias, rows of noise besides, what the steering columns are divided by)
CASES = {"narrow": (7, 130, 5, True, 0, 1), "published-k": (33, 701, 100, True, 0, 1), "best-alone": (41, 300, 1, True, 0, 1),
         "many-places": (9, 900, 333, True, 0, 1), "no-bias": (20, 257, 16, False, 0, 1),
         "many-rows": (131, 700, 21, True, 29, 32)}


def make(out):
    os.makedirs(out, exist_ok=True)
    for number, (name, (width, features, k, has_bias, more, divisor)) in enumerate(CASES.items()):
        rng = np.random.default_rng(number + 1)
        weight = rng.normal(size=(features, width)) / np.sqrt(width)
        weight[:, 0] = (np.arange(features) + 1) / 64
        weight[:, 1] = -(1 + np.arange(features) % 5)
        weight[:, 2] = 1
        weight[:, 3] = np.where(np.isin(np.arange(features), [3, features - 2]), 2, -1)
        weight[:, :4] /= divisor
        for twin in range(features // 7, features, 29):
            weight[twin] = weight[twin - 5]
        bias = rng.normal(size=features) * 0.1 if has_bias else np.zeros(features)
        for twin in range(features // 7, features, 29):
            bias[twin] = bias[twin - 5]
        along = lambda column, size: divisor * size * (np.arange(width) == column)
        noise = lambda size: rng.normal(size=width) * size
        spoilt = noise(1)
        spoilt[width // 2] = np.nan
        steered = [along(0, 8), along(1, 4), along(2, 16), along(3, 8), np.zeros(width)]
        drawn = [noise(1), noise(1), noise(1), noise(1e15), noise(1e-15), spoilt, noise(3)]
        drawn += [noise(1) for _ in range(more)]
        x = torch.tensor(np.array(drawn + steered), dtype=torch.float32)
        weight, bias = (torch.tensor(v, dtype=torch.float32) for v in (weight, bias))
        pre = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
        values, indices = torch.sort(pre, dim=-1, descending=True, stable=True)
        values, indices = values[:, :k].clone(), indices[:, :k].clone()
        indices[values <= 0], values[values <= 0] = 0, 0
        bad = pre.isnan().any(-1)
        indices[bad], values[bad] = 0, float("nan")
        exact = torch.tensor([0] * len(drawn) + [0 if has_bias else 1] * len(steered), dtype=torch.int32)
        save_file({"rows": x, "weight": weight, "bias": bias, "k": torch.tensor([k], dtype=torch.int32), "pre": pre.float(),
                   "indices": indices.int(), "values": values.float(), "exact": exact},
                  os.path.join(out, name + ".safetensors"))
    with open(os.path.join(out, "SHA256SUMS"), "w") as f:
        for name in CASES:
            digest = hashlib.sha256(open(os.path.join(out, name + ".safetensors"), "rb").read()).hexdigest()
            f.write(f"{digest}  {name}.safetensors\n")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--out")
    args.add_argument("--check")
    args = args.parse_args()
    if args.out:
        make(args.out)
    if args.check:
        with tempfile.TemporaryDirectory() as scratch:
            make(scratch)
            ours, theirs = (open(os.path.join(d, "SHA256SUMS")).read() for d in (scratch, args.check))
            if ours != theirs:
                sys.exit(f"{args.check} differs")


if __name__ == "__main__":
    main()
