#!/usr/bin/env python3
"""Golden autoencoders: files as SAELens 3 to 6, EleutherAI's sparsify, Gemma Scope, Llama Scope, dictionary_learning and
OpenAI's sparse_autoencoder write them, and what they encode in float64.

    make_sae_fixtures.py --out tests/golden/sae        every case below, and SHA256SUMS
    make_sae_fixtures.py --check tests/golden/sae      make them again, compare bytes

The arithmetic is that of SAELens' `sae_lens/saes/*.py` (6.18) and `sae_lens/sae.py` (5.3.2), of sparsify's
`sparse_coder.py`, of Gemma Scope as SAELens' `gemma_2_sae_huggingface_loader` reads it, of Llama Scope's `lm_saes/sae.py`
(December 2024), of dictionary_learning's `dictionary.py` and `trainers/*top_k.py`, and of OpenAI's `model.py`, written out in
numpy. A case is a directory as published, with `expected.safetensors` beside:
`rows` [rows, d_in]; `counts` [rows], the active features of each; `indices`, `values`, those features one row after the other,
by value descending, then index; `directions` [d_sae, d_in], what an activation of 1 writes to the stream.

Rows are noise at several scales, and: all equal; one that leaves fewer than k features positive; one that leaves none. Some
features are twins, so that equal values occur within and across the k-th. Seeds are tried until no other two values of a row, and no
value and its threshold, are so close that float32 could swap them.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import save_file

D_IN, D_SAE, K = 24, 53, 5
# twins: the second has the weights of the first
TWINS = [(3, 40), (10, 11), (7, 52), (20, 30), (20, 31)]
TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def stored(array, dtype):
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(TORCH[dtype])


def exact(tensor):
    return tensor.to(torch.float64).numpy()


def weights(rng, dtype):
    """W_enc, b_enc, W_dec, b_dec as they are stored."""
    w_enc = rng.normal(size=(D_IN, D_SAE)) / np.sqrt(D_IN)
    b_enc = rng.normal(size=D_SAE) * 0.1 - 0.4
    w_dec = rng.normal(size=(D_SAE, D_IN))
    w_dec *= (0.5 + rng.random((D_SAE, 1))) / np.linalg.norm(w_dec, axis=1, keepdims=True)
    b_dec = rng.normal(size=D_IN) * 0.3
    for a, b in TWINS:
        w_enc[:, b], b_enc[b], w_dec[b] = w_enc[:, a], b_enc[a], w_dec[a]
    return {"W_enc": stored(w_enc, dtype), "b_enc": stored(b_enc, dtype), "W_dec": stored(w_dec, dtype),
            "b_dec": stored(b_dec, dtype)}


def input_rows(rng, w, base=None):
    """`base` is the row that leaves the bias alone."""
    base = exact(w["b_dec"]) if base is None else base
    rows = [rng.normal(size=D_IN) * s for s in [1.0] * 6 + [30.0, 1e4]]
    rows.append(np.full(D_IN, 0.7))
    # along one feature: it and few others are positive
    along = exact(w["W_enc"])[:, 5]
    rows.append(base + along / (along @ along) * 0.9)
    rows.append(base)
    return np.array(rows, dtype=np.float32)


def pre_activations(x, w, normalize, apply_b_dec, bias="b_enc"):
    """`process_sae_in`, then `@ W_enc`, without and with the bias."""
    x = x.astype(np.float64)
    if normalize == "constant_norm_rescale":
        x = x * (np.sqrt(D_IN) / np.linalg.norm(x, axis=-1, keepdims=True))
    elif normalize == "layer_norm":
        x = x - x.mean(-1, keepdims=True)
        x = x / (x.std(-1, ddof=1, keepdims=True) + 1e-5)
    if apply_b_dec:
        x = x - exact(w["b_dec"])
    u = x @ exact(w["W_enc"])
    for a, b in TWINS:
        u[:, b] = u[:, a]
    return u, u + exact(w[bias])


def top(values, k):
    """Indices of the k largest, ties to the smaller."""
    return np.argsort(-values, axis=-1, kind="stable")[:, :k]


def kept(acts, k):
    out = np.zeros_like(acts)
    at = top(acts, k)
    np.put_along_axis(out, at, np.maximum(np.take_along_axis(acts, at, -1), 0), -1)
    return out


def clear(order, margins, near=5e-6):
    """Whether f32 sums leave every row in its order and every decision on its side: values are equal or apart, and what
    decides by its sign is not about 0."""
    for row, deciding in zip(order, margins):
        scale = np.abs(np.concatenate([row, deciding])).max()
        gaps = np.diff(np.sort(row))
        if np.any((gaps > 0) & (gaps < near * scale)) or np.any(np.abs(deciding) < near * scale):
            return False
    return True


def twin(values):
    for a, b in TWINS:
        values[b] = values[a]
    return values


def metadata_5(hook, layer, **more):
    """As the runner of 5.3.2 writes it: its own fields beside those of the autoencoder."""
    return {"model_name": "facebook/musicgen-small", "model_class_name": "HookedTransformer", "hook_name": hook,
            "hook_eval": "NOT_IN_USE", "hook_layer": layer, "hook_head_index": None, "dataset_path": "ManzhenWei/MusicSet",
            "dataset_trust_remote_code": True, "context_size": 501, "d_in": D_IN, "d_sae": D_SAE,
            "b_dec_init_method": "geometric_median", "expansion_factor": 32, "apply_b_dec_to_input": True,
            "normalize_activations": "none", "seqpos_slice": [None], "device": "cuda", "seed": 42, "dtype": "float32",
            "prepend_bos": True, "model_from_pretrained_kwargs": {"center_writing_weights": False},
            "sae_lens_version": "5.3.2", "sae_lens_training_version": "5.3.2", **more}


def config_6(architecture, hook, **more):
    """`SAEConfig.to_dict` of version 6."""
    return {"d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
            "normalize_activations": "none", "reshape_activations": "none",
            "metadata": {"sae_lens_version": "6.18.0", "sae_lens_training_version": "6.18.0",
                         "model_name": "facebook/musicgen-small", "hook_name": hook, "hook_head_index": None,
                         "context_size": 501, "prepend_bos": False, "dataset_path": "ManzhenWei/MusicSet"},
            "architecture": architecture, **more}


class Made:
    """One case: files, and what is expected of them."""

    def __init__(self, cfg, tensors, rows, acts, directions, order, margins=None,
                 weights_name="sae_weights.safetensors", cfg_name="cfg.json", **files):
        self.cfg, self.tensors, self.rows, self.acts, self.directions = cfg, tensors, rows, acts, directions
        self.order, self.margins = order, order if margins is None else margins
        self.weights_name, self.cfg_name, self.files = weights_name, cfg_name, files

    def write(self, path):
        weights_path = os.path.join(path, self.weights_name)
        os.makedirs(os.path.dirname(weights_path))
        if self.cfg is not None:
            with open(os.path.join(path, self.cfg_name), "w") as f:
                json.dump(self.cfg, f)
        if weights_path.endswith(".npz"):
            np.savez(weights_path, **{k: v.numpy() for k, v in self.tensors.items()})
        elif weights_path.endswith(".pt"):
            torch.save(self.tensors, weights_path)
        else:
            save_file({k: v.contiguous() for k, v in self.tensors.items()}, weights_path)
        for name, value in self.files.items():
            base, ending = name.rsplit("_", 1)
            if ending == "json":
                with open(os.path.join(path, base + ".json"), "w") as f:
                    json.dump(value, f)
            else:
                save_file(value, os.path.join(path, base + ".safetensors"))
        counts, indices, values = [], [], []
        for row in self.acts:
            order = [i for i in np.argsort(-row, kind="stable") if row[i] > 0]
            counts.append(len(order))
            indices += order
            values += [row[i] for i in order]
        as_i32 = lambda a: torch.tensor(np.array(a, dtype=np.int32))
        save_file({"rows": torch.from_numpy(self.rows), "counts": as_i32(counts), "indices": as_i32(indices),
                   "values": torch.from_numpy(np.array(values, dtype=np.float32)),
                   "directions": torch.from_numpy(np.ascontiguousarray(self.directions, dtype=np.float32))},
                  os.path.join(path, "expected.safetensors"))


def published(rng):
    """The published MusicGen autoencoders: 5.3.2, `standard` with `activation_fn` `topk`."""
    w = weights(rng, "float32")
    x = input_rows(rng, w)
    _, pre = pre_activations(x, w, "none", True)
    cfg = metadata_5("hook_layers.3", 3, architecture="standard", activation_fn="topk", activation_fn_kwargs={"k": K})
    sparsity = torch.from_numpy(np.log10(rng.random(D_SAE).astype(np.float32) * 0.1 + 1e-10))
    return Made(cfg, w, x, kept(pre, K), exact(w["W_dec"]), pre, sparsity_safetensors={"sparsity": sparsity})


def legacy(rng):
    """Version 3: other names, a truth value for the normalisation, a factor of ones; ReLU."""
    w = weights(rng, "float32")
    x = input_rows(rng, w)
    _, pre = pre_activations(x, w, "none", True)
    cfg = {"hook_point": "hook_layers.1", "hook_point_layer": 1, "hook_point_head_index": None, "model_name": "m", "d_in": D_IN,
           "d_sae": D_SAE, "normalize_activations": False, "dtype": "torch.float32", "sae_lens_training_version": None,
           "context_size": 128, "dataset_path": "d"}
    return Made(cfg, {**w, "scaling_factor": torch.ones(D_SAE)}, x, np.maximum(pre, 0), exact(w["W_dec"]), pre)


def top_k_6(rng):
    """Version 6; `b_dec` is not subtracted; stored as f16."""
    w = weights(rng, "float16")
    x = input_rows(rng, w, np.zeros(D_IN))
    _, pre = pre_activations(x, w, "none", False)
    cfg = config_6("topk", "hook_layers.11", k=K, rescale_acts_by_decoder_norm=False, apply_b_dec_to_input=False, dtype="float16")
    return Made(cfg, w, x, kept(pre, K), exact(w["W_dec"]), pre)


def rescaled(rng):
    """Activations count in norms of the decoder's rows; stored as bf16."""
    w = weights(rng, "bfloat16")
    x = input_rows(rng, w)
    norms = np.linalg.norm(exact(w["W_dec"]), axis=-1)
    pre = pre_activations(x, w, "none", True)[1] * norms
    cfg = config_6("topk", "hook_layers.11", k=K, rescale_acts_by_decoder_norm=True, dtype="bfloat16")
    return Made(cfg, w, x, kept(pre, K), exact(w["W_dec"]) / norms[:, None], pre)


def expected_average(rng):
    """A factor on rows that was not folded in yet; with `standard` of version 6."""
    w = weights(rng, "float32")
    factor = 0.21
    x = input_rows(rng, w, exact(w["b_dec"]) / factor)
    _, pre = pre_activations(x * np.float64(factor), w, "none", True)
    cfg = config_6("standard", "hook_layers.2", normalize_activations="expected_average_only_in")
    return Made(cfg, w, x, np.maximum(pre, 0), exact(w["W_dec"]) / factor, pre,
                activation_scaler_json={"scaling_factor": factor})


def constant_norm(rng):
    w = weights(rng, "float32")
    x = input_rows(rng, w)
    _, pre = pre_activations(x, w, "constant_norm_rescale", True)
    cfg = metadata_5("hook_layers.3", 3, architecture="standard", activation_fn_str="relu", activation_fn_kwargs={},
                     normalize_activations="constant_norm_rescale")
    return Made(cfg, w, x, np.maximum(pre, 0), exact(w["W_dec"]), pre)


def layer_norm(rng):
    w = weights(rng, "float32")
    x = input_rows(rng, w)
    x[8] = rng.normal(size=D_IN)  # all equal leaves nothing but rounding
    _, pre = pre_activations(x, w, "layer_norm", True)
    cfg = config_6("topk", "hook_layers.3", k=K, rescale_acts_by_decoder_norm=False, normalize_activations="layer_norm")
    return Made(cfg, w, x, kept(pre, K), exact(w["W_dec"]), pre)


def jump_relu(rng):
    """Thresholds below 0 too, where ReLU decides."""
    w = weights(rng, "float32")
    x = input_rows(rng, w)
    threshold = stored(twin(rng.normal(size=D_SAE) * 0.5 + 0.1), "float32")
    _, pre = pre_activations(x, w, "none", True)
    acts = np.maximum(pre, 0) * (pre > exact(threshold))
    margins = np.concatenate([pre, pre - exact(threshold)], -1)
    return Made(config_6("jumprelu", "hook_layers.3"), {**w, "threshold": threshold}, x, acts, exact(w["W_dec"]), acts, margins)


def batch_top_k(rng):
    """A training checkpoint: one threshold in float64, over activations in norms of the decoder's rows."""
    w = weights(rng, "float32")
    x, threshold = input_rows(rng, w), 0.3217
    norms = np.linalg.norm(exact(w["W_dec"]), axis=-1)
    pre = pre_activations(x, w, "none", True)[1] * norms
    cfg = config_6("batchtopk", "hook_layers.3", k=7.5, topk_threshold_lr=0.01, rescale_acts_by_decoder_norm=True)
    return Made(cfg, {**w, "topk_threshold": torch.tensor(threshold, dtype=torch.float64)}, x,
                np.maximum(pre, 0) * (pre > threshold), exact(w["W_dec"]) / norms[:, None], pre, pre - threshold)


def gated(rng):
    w = weights(rng, "float32")
    w["b_gate"] = w.pop("b_enc")
    w["r_mag"] = stored(twin(rng.normal(size=D_SAE) * 0.4), "float32")
    w["b_mag"] = stored(twin(rng.normal(size=D_SAE) * 0.2), "float32")
    x = input_rows(rng, w)
    u, gate = pre_activations(x, w, "none", True, "b_gate")
    magnitude = u * np.exp(exact(w["r_mag"])) + exact(w["b_mag"])
    cfg = metadata_5("hook_layers.3", 3, architecture="gated", activation_fn_str="relu", activation_fn_kwargs={})
    acts = np.maximum(magnitude, 0) * (gate > 0)
    return Made(cfg, w, x, acts, exact(w["W_dec"]), acts, np.concatenate([gate, magnitude], -1))


def finetuned(rng):
    """A factor on every feature behind the encoder."""
    w = weights(rng, "float32")
    x = input_rows(rng, w)
    factor = stored(twin(0.5 + rng.random(D_SAE)), "float32")
    _, pre = pre_activations(x, w, "none", True)
    cfg = metadata_5("hook_layers.3", 3, architecture="standard", activation_fn_str="relu", activation_fn_kwargs={},
                     finetuning_scaling_factor=True)
    return Made(cfg, {**w, "scaling_factor": factor}, x, np.maximum(pre, 0),
                exact(w["W_dec"]) * exact(factor)[:, None], pre)


def sparsify(rng):
    """ReLU first, then the selection; the hook is the directory's name."""
    w = weights(rng, "float32")
    x = input_rows(rng, w)
    _, pre = pre_activations(x, w, "none", True)
    cfg = {"activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": D_SAE, "k": K,
           "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D_IN}
    tensors = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"], "W_dec": w["W_dec"], "b_dec": w["b_dec"]}
    return Made(cfg, tensors, x, kept(np.maximum(pre, 0), K), exact(w["W_dec"]), pre, weights_name="sae.safetensors")


def gemma_scope(rng):
    """A JumpReLU in numpy's archive; `b_dec` is not subtracted, the layer and the site are in the folders' names."""
    w = weights(rng, "float32")
    x = input_rows(rng, w, np.zeros(D_IN))
    threshold = stored(twin(np.abs(rng.normal(size=D_SAE)) * 0.5), "float32")
    _, pre = pre_activations(x, w, "none", False)
    acts = np.maximum(pre, 0) * (pre > exact(threshold))
    # savez keeps the order of an array's axes in memory
    tensors = {**w, "threshold": threshold, "W_dec": w["W_dec"].T.contiguous().T}
    return Made(None, tensors, x, acts, exact(w["W_dec"]), acts, np.concatenate([pre, pre - exact(threshold)], -1),
                weights_name="params.npz")


def llama_scope(rng):
    """`standardize_parameters_of_dataset_activation_scaling`, then `transform_to_unit_decoder_norm`, then a JumpReLU of one
    threshold; stored as bf16."""
    w = weights(rng, "bfloat16")
    norm_in, norm_out, threshold = 11.5, 12.25, 0.41
    s_in, s_out = np.sqrt(D_IN) / norm_in, np.sqrt(D_IN) / norm_out
    x = input_rows(rng, w, np.zeros(D_IN))
    w_dec = exact(w["W_dec"]) * s_in / s_out
    norms = np.linalg.norm(w_dec, axis=-1)
    u, _ = pre_activations(x, w, "none", False)
    pre = (u + exact(w["b_enc"]) / s_in) * norms
    acts = np.where(pre > threshold, pre, 0)
    cfg = {"hook_point_in": "blocks.3.hook_resid_post", "hook_point_out": "blocks.3.hook_resid_post", "use_decoder_bias": True,
           "apply_decoder_bias_to_pre_encoder": False, "expansion_factor": 2, "d_model": D_IN, "d_sae": D_SAE,
           "bias_init_method": "all_zero", "act_fn": "jumprelu", "jump_relu_threshold": threshold,
           "norm_activation": "dataset-wise", "dataset_average_activation_norm": {"in": norm_in, "out": norm_out},
           "decoder_exactly_fixed_norm": False, "sparsity_include_decoder_norm": True, "use_glu_encoder": False,
           "top_k": K, "dtype": "torch.bfloat16"}
    tensors = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"], "decoder.weight": w["W_dec"].T,
               "decoder.bias": w["b_dec"]}
    return Made(cfg, tensors, x, acts, w_dec / norms[:, None], acts, pre - threshold, cfg_name="hyperparams.json",
                weights_name="checkpoints/final.safetensors", lm_config_json={"model_name": "meta-llama/Llama-3.1-8B"})


def llama_scope_top_k(rng):
    """The `k` largest in norms of the decoder, rows scaled one by one, the bias subtracted."""
    w = weights(rng, "float32")
    x = input_rows(rng, w)
    norms = np.linalg.norm(exact(w["W_dec"]), axis=-1)
    pre = pre_activations(x, w, "constant_norm_rescale", True)[1] * norms
    cfg = {"hook_point_in": "hook_layers.3", "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": True,
           "d_model": D_IN, "d_sae": D_SAE, "act_fn": "topk", "jump_relu_threshold": 0.0, "norm_activation": "token-wise",
           "dataset_average_activation_norm": None, "sparsity_include_decoder_norm": True, "use_glu_encoder": False, "top_k": K}
    tensors = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"], "decoder.weight": w["W_dec"].T,
               "decoder.bias": w["b_dec"]}
    return Made(cfg, tensors, x, kept(np.maximum(pre, 0), K), exact(w["W_dec"]) / norms[:, None], pre,
                cfg_name="hyperparams.json", weights_name="sae_weights.safetensors")


def of_dictionary_learning(dict_class, **trainer):
    return {"trainer": {"dict_class": dict_class, "activation_dim": D_IN, "dict_size": D_SAE, "layer": 3,
                        "lm_name": "facebook/musicgen-small", "submodule_name": "resid_post_layer_3", **trainer},
            "buffer": {"d_submodule": D_IN, "io": "out", "n_ctxs": 64, "ctx_len": 501}}


def linear(w, bias="encoder.bias"):
    """The names of `nn.Linear`."""
    return {"encoder.weight": w["W_enc"].T.contiguous(), bias: w["b_enc"], "decoder.weight": w["W_dec"].T.contiguous()}


def as_int(value):
    return torch.tensor(value, dtype=torch.int)


def dl_auto_encoder(rng):
    """`AutoEncoder.from_pretrained` scales the decoder to length 1 and the encoder the other way."""
    w = weights(rng, "float32")
    x = input_rows(rng, w)
    norms = np.linalg.norm(exact(w["W_dec"]), axis=-1)
    pre = pre_activations(x, w, "none", True)[1] * norms
    return Made(of_dictionary_learning("AutoEncoder"), {"bias": w["b_dec"], **linear(w)}, x, np.maximum(pre, 0),
                exact(w["W_dec"]) / norms[:, None], pre, weights_name="ae.pt", cfg_name="config.json")


def dl_auto_encoder_new(rng):
    w = weights(rng, "float32")
    x = input_rows(rng, w, np.zeros(D_IN))
    _, pre = pre_activations(x, w, "none", False)
    return Made(of_dictionary_learning("AutoEncoderNew"), {**linear(w), "decoder.bias": w["b_dec"]}, x, np.maximum(pre, 0),
                exact(w["W_dec"]), pre, weights_name="ae.pt", cfg_name="config.json")


def dl_gated(rng):
    w = weights(rng, "float32")
    r_mag, b_mag = (stored(twin(rng.normal(size=D_SAE) * s), "float32") for s in (0.4, 0.2))
    x = input_rows(rng, w)
    u, gate = pre_activations(x, w, "none", True)
    magnitude = u * np.exp(exact(r_mag)) + exact(b_mag)
    acts = np.maximum(magnitude, 0) * (gate > 0)
    state = {"decoder_bias": w["b_dec"], "r_mag": r_mag, "mag_bias": b_mag, **linear(w, "gate_bias")}
    return Made(of_dictionary_learning("GatedAutoEncoder"), state, x, acts, exact(w["W_dec"]), acts,
                np.concatenate([gate, magnitude], -1), weights_name="ae.pt", cfg_name="config.json")


def dl_top_k(rng):
    w = weights(rng, "float32")
    x = input_rows(rng, w)
    _, pre = pre_activations(x, w, "none", True)
    state = {"b_dec": w["b_dec"], "k": as_int(K), "threshold": torch.tensor(0.2), **linear(w)}
    return Made(of_dictionary_learning("AutoEncoderTopK", k=K), state, x, kept(np.maximum(pre, 0), K), exact(w["W_dec"]), pre,
                weights_name="ae.pt", cfg_name="config.json")


def dl_batch_top_k(rng):
    """The same names; the threshold decides."""
    w = weights(rng, "float32")
    x, threshold = input_rows(rng, w), torch.tensor(0.2841)
    _, pre = pre_activations(x, w, "none", True)
    state = {"b_dec": w["b_dec"], "k": as_int(K), "threshold": threshold, **linear(w)}
    return Made(of_dictionary_learning("BatchTopKSAE", k=K), state, x, np.maximum(pre, 0) * (pre > exact(threshold)),
                exact(w["W_dec"]), pre, pre - exact(threshold), weights_name="ae.pt", cfg_name="config.json")


def dl_matryoshka(rng):
    w = weights(rng, "float32")
    x, threshold = input_rows(rng, w), torch.tensor(0.2841)
    _, pre = pre_activations(x, w, "none", True)
    state = {**w, "k": as_int(K), "threshold": threshold, "group_sizes": torch.tensor([13, 40])}
    return Made(of_dictionary_learning("MatryoshkaBatchTopKSAE", k=K), state, x, np.maximum(pre, 0) * (pre > exact(threshold)),
                exact(w["W_dec"]), pre, pre - exact(threshold), weights_name="ae.pt", cfg_name="config.json")


def dl_jump_relu(rng):
    w = weights(rng, "float32")
    x = input_rows(rng, w, np.zeros(D_IN))
    threshold = stored(twin(np.abs(rng.normal(size=D_SAE)) * 0.5), "float32")
    _, pre = pre_activations(x, w, "none", False)
    acts = np.maximum(pre, 0) * (pre > exact(threshold))
    return Made(of_dictionary_learning("JumpReluAutoEncoder"), {**w, "threshold": threshold}, x, acts, exact(w["W_dec"]), acts,
                np.concatenate([pre, pre - exact(threshold)], -1), weights_name="ae.pt", cfg_name="config.json")


def openai_state(w, **more):
    return {"pre_bias": w["b_dec"], "latent_bias": w["b_enc"], "encoder.weight": w["W_enc"].T.contiguous(),
            "decoder.weight": w["W_dec"].T.contiguous(), "stats_last_nonzero": torch.zeros(D_SAE, dtype=torch.long),
            "latents_activation_frequency": torch.ones(D_SAE), "latents_mean_square": torch.zeros(D_SAE), **more}


def openai_top_k(rng):
    """Rows are centred and divided by their standard deviation where the activation is `TopK`."""
    w = weights(rng, "float16")
    x = input_rows(rng, w)
    x[8] = rng.normal(size=D_IN)  # all equal leaves nothing but rounding
    _, pre = pre_activations(x, w, "layer_norm", True)
    state = openai_state(w, activation="TopK", activation_state_dict={"k": K, "postact_fn": "ReLU"})
    return Made(None, state, x, kept(pre, K), exact(w["W_dec"]), pre, weights_name="6.pt")


def openai_relu(rng):
    w = weights(rng, "float32")
    x = input_rows(rng, w)
    _, pre = pre_activations(x, w, "none", True)
    return Made(None, openai_state(w, activation="ReLU"), x, np.maximum(pre, 0), exact(w["W_dec"]), pre, weights_name="0.pt")


CASES = {"published": published, "legacy": legacy, "topk-6": top_k_6, "topk-6-rescaled": rescaled,
         "expected-average": expected_average, "constant-norm": constant_norm, "layer-norm": layer_norm,
         "jumprelu-6": jump_relu, "batchtopk-6": batch_top_k, "gated-5": gated, "finetuned-5": finetuned,
         "sparsify/decoder.model.decoder.layers.3": sparsify, "gemma-scope-res/layer_3/width_53": gemma_scope,
         "llama-scope": llama_scope, "llama-scope-topk": llama_scope_top_k, "pickled/AutoEncoder": dl_auto_encoder,
         "pickled/AutoEncoderNew": dl_auto_encoder_new, "pickled/GatedAutoEncoder": dl_gated,
         "pickled/AutoEncoderTopK": dl_top_k, "pickled/BatchTopKSAE": dl_batch_top_k,
         "pickled/MatryoshkaBatchTopKSAE": dl_matryoshka, "pickled/JumpReluAutoEncoder": dl_jump_relu,
         "pickled/openai-topk": openai_top_k, "pickled/openai-relu": openai_relu}


def make(out):
    for number, (name, case) in enumerate(CASES.items()):
        for attempt in range(200):
            made = case(np.random.default_rng([number, attempt]))
            if clear(made.order, made.margins):
                break
        else:
            sys.exit(f"{name}: no seed keeps the values apart")
        made.write(os.path.join(out, name))
        counts = [int((row > 0).sum()) for row in made.acts]
        print(f"{name}: seed {attempt}, active {counts}")
    with open(os.path.join(out, "SHA256SUMS"), "w") as f:
        for path in files(out):
            digest = hashlib.sha256(open(os.path.join(out, path), "rb").read()).hexdigest()
            f.write(f"{digest}  {path}\n")


def files(out):
    found = (os.path.relpath(os.path.join(at, name), out) for at, _, names in os.walk(out) for name in names)
    return sorted(path for path in found if path != "SHA256SUMS")


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
