#!/usr/bin/env python3
"""What a reconstruction in the stream costs, from Hugging Face transformers run in float64.

    make_splice_fixtures.py --out tests/golden/splice       every case
    make_splice_fixtures.py --check tests/golden/splice     run them again, compare with what is there

A case is a model of `make_fixtures.py` and a random top-k autoencoder at one site. `CASE.safetensors` holds the codes
[rows, K, frames] and the autoencoder (float32, names as SAELens has them); `CASE.json` the sums over the codes of each row of
-ln p(code), of the model as it is (`clean`), with reconstructions (`spliced`) and with zeros (`zeroed`) in place of the rows at
the site, how many codes of a row are predicted, and the fraction of variance that the reconstructions leave unexplained.
Code (k, t) is predicted by the logits of head k at position t + delay(k), where that is before the last position
(audiocraft `LMModel.compute_predictions`).
"""

import argparse
import json
import os
import sys
import tempfile

sys.dont_write_bytecode = True

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import cases
from generation import delays
from record import delayed, musicgen, noise_codes

torch.set_grad_enabled(False)

# case, layer whose output is replaced, features, k
CASES = {"tiny": (1, 40, 7), "stereo": (0, 30, 5)}
ROWS, FRAMES = 2, 9
# float32 moves a pre-activation by about 1e-6
MARGIN = 1e-4


def random_sae(rng, width, features):
    draw = lambda *shape: torch.from_numpy((rng.normal(size=shape) / np.sqrt(width)).astype(np.float32))
    return {"W_enc": draw(width, features), "b_enc": draw(features), "W_dec": draw(features, width), "b_dec": draw(width)}


def case(name):
    layer, features, k = CASES[name]
    config = cases.musicgen_config({**cases.DECODERS[name]})
    model = musicgen(config)[0].double()
    decoder = model.decoder
    codebooks, vocab = decoder.config.num_codebooks, decoder.config.vocab_size
    lags = delays(decoder.config)
    codes = noise_codes(sum(map(ord, name)), ROWS, codebooks, FRAMES, vocab)
    ids = delayed(codes, lags, vocab)
    sae = random_sae(np.random.default_rng(3), decoder.config.hidden_size, features)
    w = {name: values.double() for name, values in sae.items()}
    told = {}

    def reconstructed(x):
        pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
        ordered = pre.sort(-1, descending=True).values
        assert (ordered[..., k - 1] - ordered[..., k]).min() > MARGIN, "a feature is nearly chosen"
        values, places = pre.topk(k, -1)
        xhat = torch.zeros_like(pre).scatter(-1, places, values.relu()) @ w["W_dec"] + w["b_dec"]
        told["fvu"] = (((x - xhat) ** 2).sum() / ((x - x.mean((0, 1))) ** 2).sum()).item()
        return xhat

    def sums(change):
        hook = decoder.model.decoder.layers[layer].register_forward_hook(
            lambda _m, _a, out: (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out))
        logits = decoder(input_ids=ids.reshape(ROWS * codebooks, -1)).logits.reshape(ROWS, codebooks, FRAMES + 1, vocab)
        hook.remove()
        logs = torch.log_softmax(logits, -1)
        places = [(q, t) for q in range(codebooks) for t in range(FRAMES - lags[q])]
        told["predicted"] = len(places)
        return [-sum(logs[row, q, t + lags[q], codes[row, q, t]].item() for q, t in places) for row in range(ROWS)]

    result = {"site": f"layers.{layer}.resid_post", "k": k, "clean": sums(lambda x: x), "spliced": sums(reconstructed),
              "zeroed": sums(torch.zeros_like), **told}
    return result, {"codes": codes.to(torch.int32), **sae}


def make(out):
    os.makedirs(out, exist_ok=True)
    for name in CASES:
        result, tensors = case(name)
        save_file(tensors, os.path.join(out, f"{name}.safetensors"))
        with open(os.path.join(out, f"{name}.json"), "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
        print(name, result)


def check(there):
    with tempfile.TemporaryDirectory() as scratch:
        make(scratch)
        for name in CASES:
            ours, theirs = (json.load(open(os.path.join(d, f"{name}.json"))) for d in (scratch, there))
            assert ours.keys() == theirs.keys(), name
            for key, value in ours.items():
                same = value == theirs[key] if isinstance(value, (int, str)) else np.allclose(value, theirs[key], rtol=1e-12)
                assert same, (name, key)
            ours, theirs = (load_file(os.path.join(d, f"{name}.safetensors")) for d in (scratch, there))
            assert all(torch.equal(values, theirs[key]) for key, values in ours.items()), name


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--out")
    args.add_argument("--check")
    args = args.parse_args()
    if args.out:
        make(args.out)
    if args.check:
        check(args.check)


if __name__ == "__main__":
    main()
