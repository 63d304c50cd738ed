"""The models that the goldens come from: small, and each odd in its own way.

A decoder case is a whole MusicGen (T5 + EnCodec + decoder) so that its config.json and tensor names are those of a
real checkpoint; a codec case is an EnCodec alone. `runs` are (batch, frames) or lengths in samples.
"""

from transformers import (EncodecConfig, MusicgenConfig, MusicgenDecoderConfig, MusicgenMelodyConfig,
                          MusicgenMelodyDecoderConfig, T5Config)

# Weights as a checkpoint stored in half precision would give them.
STORED = ("f16", "bf16")


def decoder(about, heads, head_dim, ffn, layers, codebooks, vocab, runs, **more):
    return dict(about=about, heads=heads, head_dim=head_dim, ffn=ffn, layers=layers, codebooks=codebooks,
                vocab=vocab, runs=runs, **more)


DECODERS = {
    "tiny": decoder("head_dim 64 and the codec ratios of the published models", 2, 64, 512, 3, 4, 64,
                    [(2, 21), (1, 65)], stored=STORED, real_codec=True),
    "stereo": decoder("8 codebooks, delays 0 0 1 1 2 2 3 3", 2, 16, 128, 2, 8, 16, [(1, 1), (2, 19)], stereo=True),
    "hd1": decoder("head_dim 1; d_model below every tile", 6, 1, 5, 2, 4, 7, [(2, 65)]),
    "hd8": decoder("one codebook: no delay; ReLU; fewer frames than any tile", 5, 8, 96, 2, 1, 31,
                   [(3, 1), (3, 2), (1, 3)], activation="relu"),
    "hd20": decoder("T5 as wide as the decoder: no projection; one layer", 3, 20, 100, 1, 2, 7, [(1, 17), (1, 64)],
                    text_width=60),
    "hd33": decoder("odd head_dim one past a warp; prime feed-forward", 2, 33, 127, 3, 3, 129, [(3, 17)]),
    "hd40": decoder("feed-forward barely wider than d_model", 1, 40, 41, 4, 3, 65, [(1, 63)]),
    "hd65": decoder("odd head_dim one past two warps; more codebooks than frames", 2, 65, 77, 2, 5, 100,
                    [(3, 3), (1, 31)]),
    "hd96": decoder("frames two past two key tiles of 64", 1, 96, 200, 1, 4, 33, [(1, 130)]),
    "hd128": decoder("the widest head", 3, 128, 384, 1, 4, 65, [(1, 2), (1, 17)]),
}

# MusicGen Melody: chroma and text are rows before the first column; no cross-attention.
MELODIES = {
    "melody": decoder("chroma and text as a prefix of the columns", 3, 16, 96, 2, 4, 37, None, chroma_length=11),
    "melody-stereo": decoder("the same with 8 codebooks; T5 as wide as the decoder: no projection of text", 2, 10, 50, 2,
                             8, 16, None, stereo=True, text_width=20, chroma_length=9),
}

REAL_DECODERS = {"small": (1024, 24), "medium": (1536, 48)}


def codec(about, lengths, codebooks, layers_at, **config):
    return dict(about=about, lengths=lengths, codebooks=codebooks, layers_at=layers_at, config=config)


CODECS = {
    "codec-24khz": codec("the 24 kHz layout: causal, shortcut; two bandwidths", [3200, 3277, 641, 5], (2, 4), 641,
                         sampling_rate=24000, num_filters=4, hidden_size=8, codebook_size=16,
                         upsampling_ratios=[8, 5, 4, 2], use_causal_conv=True, use_conv_shortcut=True),
    "codec-zero-pad": codec("zero padding; kernels 5 and 3; compress 1; one codebook", [1, 5, 96, 641], (1,), 96,
                            sampling_rate=96, num_filters=3, hidden_size=7, kernel_size=5, last_kernel_size=3,
                            num_residual_layers=2, compress=1, num_lstm_layers=1, pad_mode="constant",
                            codebook_size=8, upsampling_ratios=[3, 2], use_causal_conv=False,
                            use_conv_shortcut=False),
    "codec-replicate": codec("replicate padding; one odd ratio; dilations 1 3 9; shortcut", [1, 5, 64, 641], (3,), 64,
                             sampling_rate=8000, num_filters=5, hidden_size=10, residual_kernel_size=5,
                             dilation_growth_rate=3, num_residual_layers=3, compress=1, num_lstm_layers=1,
                             pad_mode="replicate", codebook_size=32, upsampling_ratios=[5], use_causal_conv=False,
                             use_conv_shortcut=True),
    "codec-causal-trim": codec("causal, half of the transposed trim on the right; three LSTM layers",
                               [5, 42, 641], (2,), 42,
                               sampling_rate=4410, num_filters=6, hidden_size=16, last_kernel_size=3,
                               num_residual_layers=2, num_lstm_layers=3, trim_right_ratio=0.5, codebook_size=64,
                               upsampling_ratios=[7, 2, 3], use_causal_conv=True, use_conv_shortcut=False),
    "codec-halves": codec("four ratios of 2; causal zero padding; trim all left; eight codebooks of 2 codes",
                          [1, 5, 160, 641], (8,), 160,
                          sampling_rate=22050, num_filters=4, hidden_size=5, compress=4, trim_right_ratio=0.0,
                          pad_mode="constant", codebook_size=2, upsampling_ratios=[2, 2, 2, 2],
                          use_causal_conv=True, use_conv_shortcut=True),
    "codec-even-kernels": codec("even kernels pad unevenly; a ratio of 1; compress 2 of 5 filters", [5, 77, 641], (5,),
                                77, sampling_rate=2000, num_filters=5, hidden_size=9, kernel_size=4,
                                last_kernel_size=2, residual_kernel_size=4, dilation_growth_rate=3,
                                num_residual_layers=2, codebook_size=16, upsampling_ratios=[4, 1],
                                use_causal_conv=False, use_conv_shortcut=False),
    "codec-far-reflect": codec("causal reflection of 36 samples, past the end of short inputs; dilations 1 3 9",
                               [1, 5, 61, 641], (4,), 61,
                               sampling_rate=12000, num_filters=3, hidden_size=6, residual_kernel_size=5,
                               dilation_growth_rate=3, num_residual_layers=3, codebook_size=8,
                               upsampling_ratios=[4, 3], use_causal_conv=True, use_conv_shortcut=False),
    "codec-far-reflect-sides": codec("the same reflection on both sides", [1, 5, 61, 641], (4,), 61,
                                     sampling_rate=12000, num_filters=3, hidden_size=6, residual_kernel_size=5,
                                     dilation_growth_rate=3, num_residual_layers=3, compress=1, codebook_size=8,
                                     upsampling_ratios=[4, 3], use_causal_conv=False, use_conv_shortcut=False),
    "codec-odd-ratios": codec("ratios 9 and 5: uneven trims", [5, 89, 641], (5,), 89,
                              sampling_rate=16000, num_filters=2, hidden_size=3, codebook_size=32,
                              upsampling_ratios=[9, 5, 2], use_causal_conv=False, use_conv_shortcut=True),
    "codec-pointwise": codec("kernel 1 pads nothing; replicate, causal; seven codebooks", [1, 5, 40, 641], (7,), 40,
                             sampling_rate=300, num_filters=7, hidden_size=11, kernel_size=1, last_kernel_size=1,
                             residual_kernel_size=1, pad_mode="replicate", codebook_size=128, upsampling_ratios=[3],
                             use_causal_conv=True, use_conv_shortcut=False),
}


def bandwidth_for(config, codebooks):
    """The bandwidth (kb/s) at which HF's two formulas (`num_quantizers`, `get_num_quantizers_for_bandwidth`) give
    this many codebooks: the exact one where binary rounding allows, else a hair above."""
    bits = config.frame_rate * config.codebook_nbits
    for slack in (0.0, 0.25):
        kbps = (codebooks + slack) * bits / 1000
        if int(1000 * kbps // bits) == codebooks and int(max(1, kbps * 1000 // bits)) == codebooks:
            return kbps
    raise ValueError(f"no bandwidth gives {codebooks} codebooks")


def codec_config(case):
    config = EncodecConfig(normalize=False, **case["config"])
    config.target_bandwidths = [bandwidth_for(config, n) for n in case["codebooks"]]
    assert config.num_quantizers == case["codebooks"][-1]
    return config


def musicgen_config(case):
    d_model, codebooks, vocab = case["heads"] * case["head_dim"], case["codebooks"], case["vocab"]
    stereo = case.get("stereo", False)
    if case.get("real_codec"):
        t5 = T5Config(vocab_size=259, d_model=48, d_kv=16, d_ff=96, num_layers=3, num_heads=3,
                      feed_forward_proj="relu")
        filters, hidden, ratios, rate = 8, 16, [8, 5, 4, 4], 32000
    else:
        t5 = T5Config(vocab_size=13, d_model=case.get("text_width", 6), d_kv=4, d_ff=10, num_layers=1, num_heads=2,
                      feed_forward_proj="relu")
        filters, hidden, ratios, rate = 2, 4, [2, 2], 200
    # EnCodec's codebooks hold a power of two codes; the decoder's vocabulary need not.
    codec = EncodecConfig(sampling_rate=rate, num_filters=filters, hidden_size=hidden, upsampling_ratios=ratios,
                          codebook_size=1 << (vocab.bit_length() - 1), use_causal_conv=False, normalize=False,
                          use_conv_shortcut=False)
    codec.target_bandwidths = [bandwidth_for(codec, codebooks // 2 if stereo else codebooks)]
    melody = "chroma_length" in case
    lm = (MusicgenMelodyDecoderConfig if melody else MusicgenDecoderConfig)(
        vocab_size=vocab, hidden_size=d_model, ffn_dim=case["ffn"], num_hidden_layers=case["layers"],
        num_attention_heads=case["heads"], num_codebooks=codebooks, audio_channels=2 if stereo else 1,
        pad_token_id=vocab, bos_token_id=vocab, activation_function=case.get("activation", "gelu"))
    if melody:
        return MusicgenMelodyConfig.from_sub_models_config(t5, codec, lm, chroma_length=case["chroma_length"])
    return MusicgenConfig.from_sub_models_config(t5, codec, lm)


def real_config(size):
    """The published dimensions (transformers' convert_musicgen_transformers.py, 4.46)."""
    d_model, layers = REAL_DECODERS[size]
    t5 = T5Config(vocab_size=32128, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12,
                  feed_forward_proj="relu")
    codec = EncodecConfig(target_bandwidths=[2.2], sampling_rate=32000, num_filters=64,
                          upsampling_ratios=[8, 5, 4, 4], codebook_size=2048, use_causal_conv=False, normalize=False,
                          use_conv_shortcut=False)
    lm = MusicgenDecoderConfig(hidden_size=d_model, ffn_dim=4 * d_model, num_hidden_layers=layers,
                               num_attention_heads=d_model // 64)
    return MusicgenConfig.from_sub_models_config(t5, codec, lm)
