#!/usr/bin/env python3
"""SAELens itself loads what `auscult` writes, and encodes the same.

    check_with_sae_lens.py target/release/auscult OUT

Trains an autoencoder of every mode on random rows and converts every pickled one of `tests/golden/sae/pickled`, into OUT; loads each
with `SAE.load_from_disk` (SAELens 6) or `SAE.load_from_pretrained` (5), encodes rows, and compares with `auscult sae encode`. Prints
the largest difference of each, as a share of the row's largest value; ends with 1 where one is above 1e-5 or a file cannot be loaded.
Features whose encoders are equal count as one: at the edge of the k largest either may be the one that is kept.

The environment beside that of `setup_ref_venv.sh` (.venv-ref), for SAELens 6.22.2; the same with 5.3.2. Its own dependencies would
bring another torch, so what its import needs is named one by one:

    .venv-ref/bin/python -m venv .venv-sae-lens
    ls -d "$PWD"/.venv-ref/lib/python3.11/site-packages >.venv-sae-lens/lib/python3.11/site-packages/ref.pth
    .venv-sae-lens/bin/pip install --no-deps sae-lens==6.22.2 transformer-lens==2.16.1 'datasets<4' 'wandb<0.20' 'protobuf<6' \\
        einops jaxtyping wadler-lindig simple-parsing docstring-parser beartype fancy-einsum rich pygments markdown-it-py mdurl \\
        accelerate pandas pyarrow plotly plotly-express pydantic pydantic-core annotated-types typing-inspection python-dotenv babe \\
        nltk xxhash dill multiprocess psutil better-abc typeguard python-dateutil six pytz tenacity narwhals click platformdirs \\
        docker-pycreds setproctitle sentry-sdk GitPython gitdb smmap
    .venv-sae-lens/bin/python tests/golden/check_with_sae_lens.py target/release/auscult OUT
"""

import argparse
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from sae_lens import SAE

MODES = ["saelens-5.3.2", "topk", "batchtopk", "jumprelu", "relu"]
WIDTH, FEATURES, K = 24, 96, 5
LIMIT = 1e-5

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("auscult", help="the program")
parser.add_argument("out", type=Path, help="a directory that is empty or absent")
args = parser.parse_args()


def auscult(*words):
    done = subprocess.run([args.auscult, "--device", "cpu", "--quiet", *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"auscult {' '.join(map(str, words))}: exit code {done.returncode}\n{done.stderr}")


def written():
    """Names and directories of autoencoders, made one after another."""
    for mode in MODES:
        out = args.out / f"trained-{mode}"
        auscult("sae", "train", "--input", args.out / "train.npy", "--hook", "hook_layers.1", "--mode", mode,
                "--features", FEATURES, "--k", K, "--steps", 60, "--batch", 64, "--seed", 3, "--out", out)
        yield f"sae train --mode {mode}", out
    pickled = Path(__file__).parent / "sae" / "pickled"
    for case in sorted(path for path in pickled.iterdir() if path.is_dir()):
        out = args.out / f"converted-{case.name}"
        auscult("model", "convert", next(case.glob("*.pt")), "--hook", "hook_layers.1", "--out", out)
        yield f"model convert, {case.name}", out


def ours(directory, rows):
    """What `auscult` encodes: [rows, features]."""
    auscult("sae", "encode", "--sae", directory, "--input", rows, "--out", args.out / "encoded.safetensors")
    found = load_file(args.out / "encoded.safetensors")
    features = load_file(directory / "sae_weights.safetensors")["W_enc"].shape[1]
    dense = np.zeros((found["indices"].shape[0], features), np.float32)
    for row, indices, values in zip(dense, found["indices"], found["values"]):
        row[indices[values > 0]] = values[values > 0]
    return dense


def merged(dense, directory):
    """Features of equal encoders as one."""
    weights = load_file(directory / "sae_weights.safetensors")
    own = [weights[name][None] for name in ("b_enc", "b_gate", "threshold", "r_mag", "b_mag") if name in weights]
    _, group = np.unique(np.concatenate([weights["W_enc"], *own]), axis=1, return_inverse=True)
    sums = np.zeros((group.max() + 1, dense.shape[0]))
    np.add.at(sums, group.reshape(-1), dense.T.astype(np.float64))
    return sums.T


def load(directory):
    """SAELens 5 knows one name, 6 the other."""
    if hasattr(SAE, "load_from_disk"):
        return SAE.load_from_disk(str(directory), device="cpu")
    return SAE.load_from_pretrained(str(directory), device="cpu")


args.out.mkdir(parents=True, exist_ok=True)
if any(args.out.iterdir()):
    sys.exit(f"{args.out}: is not empty, expected an empty or absent directory")
rng = np.random.default_rng(0)
mixed = rng.normal(size=(3 * WIDTH, WIDTH)) / np.sqrt(WIDTH)


def some_rows(count):
    """A few of more directions than there are columns, and noise."""
    active = rng.exponential(size=(count, 3 * WIDTH)) * (rng.random((count, 3 * WIDTH)) < 0.1)
    return (active @ mixed + 0.05 * rng.normal(size=(count, WIDTH))).astype(np.float32)


np.save(args.out / "train.npy", some_rows(4096))
rows = some_rows(200)
np.save(args.out / "rows.npy", rows)
print(f"SAELens {importlib.metadata.version('sae-lens')}, torch {torch.__version__}")
failed = 0
for name, directory in written():
    found = merged(ours(directory, args.out / "rows.npy"), directory)
    try:
        sae = load(directory)
        with torch.no_grad():
            dense = sae.encode(torch.from_numpy(rows)).numpy()
    except Exception as error:  # whatever SAELens finds amiss is a failure of this file
        print(f"{name}: {type(error).__name__}: {error}")
        failed += 1
        continue
    wanted = merged(dense, directory)
    scale = np.maximum(wanted.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    worst = float((np.abs(found - wanted) / scale).max())
    active = (wanted > 0).sum() / len(rows)
    is_right = worst <= LIMIT and active > 0
    failed += not is_right
    print(f"{name}: {active:.2f} active a row, largest difference {worst:.1e}{'' if is_right else ', FAILED'}")
if failed:
    sys.exit(f"{failed} failed")
print("all passed")
