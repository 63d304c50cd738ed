#!/usr/bin/env python3
"""Golden outputs of MusicGen's text half: tokenizer, T5 encoder, projection; from Hugging Face transformers.

    make_text_fixtures.py --out tests/golden/text        every case below
    make_text_fixtures.py --check tests/golden/text      run them again, compare with what is there

An encoder case is a folder as `make_fixtures.py` writes them, of a whole MusicGen whose decoder and codec are as small as
they can be. The encoder runs in float64 throughout (`exact`): HF's own code takes the mean square and the softmax in float32
whatever the model's type is. Buckets of relative positions stay float32's, which is what trained models saw.

Tensors of a run: `ids` [prompts, steps] padded with 0, `lengths` [prompts], then of the prompts' own tokens alone, one
prompt after the other, [sum of lengths, width]: `embed`, `blocks.N.resid_post`, `final_norm`, and `projected`
(`enc_to_dec_proj`, where the case has one).

`buckets` holds HF's bucket of every relative position from -600 to 600 for several (buckets, max_distance).

`tokenizer` holds a small T5-style unigram model (`spiece.model`, `tokenizer.json`, `tokenizer_config.json`) and
`expected.json`: texts with the ids of HF's fast tokenizer; where they differ also those of the slow one, and of the fast
one with the normalizer and pre-tokenizer of the published files (`as_published`).
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile

sys.dont_write_bytecode = True

import numpy as np
import tokenizers
import torch
from safetensors.torch import load_file
from transformers import EncodecConfig, MusicgenConfig, MusicgenDecoderConfig, T5Config
from transformers.models.t5 import modeling_t5

import cases
from record import Case, musicgen

torch.set_grad_enabled(False)

# name: (about, T5, width of the decoder, prompts' lengths of each run)
ENCODERS = {
    "relu": ("T5 v1.0; odd heads of odd width; lengths on both sides of every exact bucket and of the last",
             dict(vocab_size=61, d_model=22, d_kv=7, d_ff=37, num_layers=3, num_heads=3, feed_forward_proj="relu"), 10,
             [[5, 1, 23], [150], [8, 7], [33, 3, 32, 31, 17]]),
    "gated": ("T5 v1.1: gated GELU; few buckets, the last from a short distance",
              dict(vocab_size=40, d_model=24, d_kv=9, d_ff=33, num_layers=2, num_heads=5, feed_forward_proj="gated-gelu",
                   relative_attention_num_buckets=8, relative_attention_max_distance=20), 14,
              [[40, 2], [1]]),
    "wide": ("d_kv 64 as published; as wide as the decoder: no projection",
             dict(vocab_size=33, d_model=96, d_kv=64, d_ff=160, num_layers=2, num_heads=2, feed_forward_proj="relu"), 96,
             [[12, 19]]),
}

BUCKETS = [(32, 128), (8, 20), (4, 3), (6, 100), (64, 1000)]


def encoder_config(t5, width):
    codec = EncodecConfig(sampling_rate=200, num_filters=2, hidden_size=4, upsampling_ratios=[2, 2], codebook_size=4,
                          use_causal_conv=False, normalize=False, use_conv_shortcut=False)
    codec.target_bandwidths = [cases.bandwidth_for(codec, 1)]
    lm = MusicgenDecoderConfig(vocab_size=4, hidden_size=width, ffn_dim=3, num_hidden_layers=1, num_attention_heads=2,
                               num_codebooks=1, pad_token_id=4, bos_token_id=4)
    return MusicgenConfig.from_sub_models_config(T5Config(**t5), codec, lm)


def mean_square_norm(self, x):
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


@contextlib.contextmanager
def exact():
    """float64 stays float64, but for the buckets."""
    norm, to_float = modeling_t5.T5LayerNorm.forward, torch.Tensor.float
    bucket = modeling_t5.T5Attention._relative_position_bucket

    def float32_bucket(*args, **more):
        torch.Tensor.float = to_float
        try:
            return bucket(*args, **more)
        finally:
            torch.Tensor.float = torch.Tensor.double

    modeling_t5.T5LayerNorm.forward = mean_square_norm
    modeling_t5.T5Attention._relative_position_bucket = staticmethod(float32_bucket)
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        modeling_t5.T5LayerNorm.forward = norm
        modeling_t5.T5Attention._relative_position_bucket = staticmethod(bucket)
        torch.Tensor.float = to_float


def encode(model, ids, mask):
    """Every site, padded rows dropped."""
    encoder, got, hooks = model.text_encoder.encoder, {}, []
    encoder.config._attn_implementation = "eager"

    def keep(module, site):
        hooks.append(module.register_forward_hook(
            lambda _m, _a, out: got.__setitem__(site, (out[0] if isinstance(out, tuple) else out).clone())))

    keep(encoder.embed_tokens, "embed")
    for b, block in enumerate(encoder.block):
        keep(block, f"blocks.{b}.resid_post")
    keep(encoder.final_layer_norm, "final_norm")
    model.text_encoder(input_ids=ids, attention_mask=mask)
    for hook in hooks:
        hook.remove()
    if hasattr(model, "enc_to_dec_proj"):
        got["projected"] = model.enc_to_dec_proj(got["final_norm"])
    return {site: tensor[mask.bool()] for site, tensor in got.items()}


def encoder_case(name, out):
    about, t5, width, runs = ENCODERS[name]
    case = Case(name, "musicgen", about)
    case.config = encoder_config(t5, width)
    model, case.manifest["weights"], case.manifest["weights_sha256"] = musicgen(case.config)
    double = musicgen(encoder_config(t5, width))[0].double()
    assert hasattr(model, "enc_to_dec_proj") == (t5["d_model"] != width)
    for seed, lengths in enumerate(runs):
        draw, run = np.random.default_rng(11 + seed), f"r{seed}"
        ids = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
        for row, length in zip(ids, lengths):
            row[: length - 1] = torch.from_numpy(draw.integers(2, t5["vocab_size"], length - 1))
            row[length - 1] = 1
        mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
        near = encode(model, ids, mask)
        with exact():
            gold = encode(double, ids, mask)
        assert gold["final_norm"].dtype == torch.float64
        case.manifest["runs"][run] = {"kind": "text", "lengths": lengths}
        case.put(f"{run}.ids", ids)
        case.put(f"{run}.lengths", torch.tensor(lengths))
        for site, tensor in gold.items():
            case.put(f"{run}.{site}", tensor, near[site])
    case.write(out)


def buckets_case(out):
    case = Case("buckets", "tables", "buckets of relative positions, key minus query, both directions")
    relative = torch.arange(-600, 601)
    case.put("relative", relative)
    for buckets, distance in BUCKETS:
        found = modeling_t5.T5Attention._relative_position_bucket(relative, True, buckets, distance)
        case.put(f"buckets.{buckets}.{distance}", found)
    case.write(out)


# ---------------------------------------------------------------- tokenizer

WORDS = ("pop rock song with loud guitars and heavy drums a dynamic blend of hip hop orchestral elements sweeping strings "
         "brass evoking the vibrant energy city 80s 90s driving drum bass synth pads lofi slow bpm electro chill organic "
         "samples violins flutes melody piano jazz ambient techno house classical reggaeton edm beats naive happy sad 174 BPM, "
         "Rock Pop Jazz DJ lo-fi (live) [bass] & / ! ? : ; it's drums, 1st 2nd 3rd 4 5 6 7 naïve café").split()

TEXTS = [
    "80s pop track with bassy drums and synth", "90s rock song with loud guitars and heavy drums", "", " ", "   ", "\t\n",
    "  two  spaces ", "leading", " leading", "trailing   ", "a  b   c    d", "tab\tand\nnewline\r\nreturn",
    "\u00a0no-break\u00a0space\u00a0", "\u2003em space\u3000ideographic", "zero\u200bwidth\ufeffmarks",
    "Ünïcödé ﬁ ① ｆｕｌｌ", "naïve\tlofi\nslow bpm", "nai\u0308ve is decomposed", "drum & bass, 174 BPM!", "日本の太鼓",
    "한국 음악", "ﷺ expands", "½ and ² and ™", "🎸 rock 🥁🏽 👩‍🎤", "control \x01\x02 characters \x7f", "guitars" * 12, "x" * 40,
    "loud-guitars_and/heavy\\drums", "UPPER lower MiXeD", "▁already▁marked", "▁", "#hashtag @mention http://a.b/c?d=e",
    "…—–‘’“”«»", "0123456789 3.14159 1,000,000", "<unk> <pad> unknown", "<extra_id_0> drums <extra_id_99>", "<extra_id_100>",
    "ends with </s>", "</s>", "a </s> b", "e\u0301\u0301 stacked", "Ω ≈ ç √ ∫", "İstanbul ıßſ",
]


def train(folder):
    """A unigram model over words and made-up syllables, as T5's: pad 0, end 1, unknown 2, no beginning."""
    import sentencepiece

    draw = np.random.default_rng(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "ing")]
    words = WORDS + ["".join(draw.choice(syllables, draw.integers(1, 4))) for _ in range(300)]
    corpus = os.path.join(folder, "corpus.txt")
    with open(corpus, "w") as f:
        for _ in range(4000):
            f.write(" ".join(draw.choice(words, draw.integers(3, 12))) + ("." if draw.random() < 0.5 else "") + "\n")
    sentencepiece.SentencePieceTrainer.train(
        input=corpus, model_prefix=os.path.join(folder, "spiece"), vocab_size=320, model_type="unigram", pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, normalization_rule_name="nmt_nfkc", character_coverage=1.0, hard_vocab_limit=False,
        minloglevel=2)
    os.remove(corpus)
    os.remove(os.path.join(folder, "spiece.vocab"))


def as_published(path):
    """The same model in the form of the published files, which an older converter wrote."""
    with open(path) as f:
        form = json.load(f)
    form["normalizer"] = form["normalizer"]["normalizers"][0]
    form["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}]}
    return tokenizers.Tokenizer.from_str(json.dumps(form))


def tokenizer_case(out):
    from transformers import T5Tokenizer, T5TokenizerFast

    folder = os.path.join(out, "tokenizer")
    model = os.path.join(folder, "spiece.model")
    os.makedirs(folder, exist_ok=True)
    # training is not the same on every processor: the committed model stays
    if not os.path.exists(model):
        train(folder)
    slow = T5Tokenizer(model, extra_ids=100, legacy=True)
    fast = T5TokenizerFast(model, extra_ids=100, model_max_length=512, add_prefix_space=True)
    fast.save_pretrained(folder)
    published = as_published(os.path.join(folder, "tokenizer.json"))
    for unread in ("special_tokens_map.json", "added_tokens.json"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, unread))
    texts = []
    for text in TEXTS:
        entry = {"text": text, "ids": fast(text).input_ids}
        other = slow(text).input_ids
        if other != entry["ids"]:
            entry["slow"] = other
        other = published.encode(text).ids
        if other != entry["ids"]:
            entry["published"] = other
        texts.append(entry)
    with open(os.path.join(folder, "expected.json"), "w") as f:
        f.write("[\n" + ",\n".join(" " + json.dumps(entry) for entry in texts) + "\n]\n")
    print(f"tokenizer: {len(texts)} texts, slow differs in {sum('slow' in entry for entry in texts)}, "
          f"the published form in {sum('published' in entry for entry in texts)}")


# ---------------------------------------------------------------- command line


def make(out):
    for name in ENCODERS:
        encoder_case(name, out)
    buckets_case(out)
    tokenizer_case(out)


def check(committed):
    """Fails where a fresh run differs from the committed one by more than float64 can on another processor."""
    wrong = []
    with tempfile.TemporaryDirectory() as fresh:
        os.makedirs(os.path.join(fresh, "tokenizer"))
        shutil.copy(os.path.join(committed, "tokenizer", "spiece.model"), os.path.join(fresh, "tokenizer"))
        make(fresh)
        for name in [*ENCODERS, "buckets"]:
            new, old = (load_file(os.path.join(d, name, "expected.safetensors")) for d in (fresh, committed))
            if new.keys() != old.keys():
                wrong.append(f"{name}: tensors differ: {sorted(new.keys() ^ old.keys())}")
                continue
            for key, a in new.items():
                b = old[key]
                scale = 2e-7 * max(1.0, float(b.abs().max())) if a.dtype.is_floating_point else 0.0
                if a.shape != b.shape or a.dtype != b.dtype or float((a.double() - b.double()).abs().max()) > scale:
                    wrong.append(f"{name}: `{key}` differs")
        for file in ("tokenizer.json", "tokenizer_config.json", "expected.json"):
            texts = [open(os.path.join(d, "tokenizer", file)).read() for d in (fresh, committed)]
            if texts[0] != texts[1]:
                wrong.append(f"tokenizer: {file} differs")
    if wrong:
        sys.exit("\n".join(wrong))
    print("reproduced")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", metavar="DIR")
    where.add_argument("--check", metavar="DIR")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if args.check:
        check(args.check)
    else:
        make(args.out)


if __name__ == "__main__":
    main()
