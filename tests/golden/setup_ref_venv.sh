#!/bin/sh
# CPU-only reference environment: PyPI's torch 2.8.0 (888 MB wheel, CUDA build) without the nvidia-* wheels,
# with stand-in CUDA libraries so that it imports. Needs python 3.11, gcc, readelf (binutils). About 2.3 GB on disk.
set -e
V=${1:-.venv-ref}
HERE=$(dirname "$0")
python3 -m venv "$V"
"$V/bin/pip" install -q --no-deps torch==2.8.0
"$V/bin/pip" install -q filelock typing_extensions sympy==1.14.0 networkx jinja2 fsspec numpy==2.4.6 \
    transformers==4.57.6 tokenizers==0.22.2 safetensors==0.8.0
"$V/bin/python" "$HERE/make_cuda_stubs.py" "$V/lib/python3.11/site-packages/torch/lib" >/dev/null
"$V/bin/python" -c "import torch, transformers; assert not torch.cuda.is_available(); print(torch.__version__, transformers.__version__)"
