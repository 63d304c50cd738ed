#!/usr/bin/env python3
"""Small files written by torch.save for the converter's tests, and malicious ones that it must refuse.

  make_torch_files.py OUT_DIR        (made with torch 2.8.0; every file stays below 50 kB)

Nothing is executed by writing them. Values are w[i] = (7 i + 3 len(name)) mod 31 - 15, so tests know them by name and
index without a second file; views and reshapes are made so that the values in row-major order are those.
"""
import collections, io, os, pickle, struct, sys, zipfile
import torch

OUT = sys.argv[1]


def values(name, *shape, dtype=torch.float32):
    n = 1
    for s in shape:
        n *= s
    return ((7 * torch.arange(n) + 3 * len(name)) % 31 - 15).to(dtype).reshape(shape)


def save(name, obj, **kw):
    path = os.path.join(OUT, name)
    torch.save(obj, path, **kw)
    assert os.path.getsize(path) < 50_000, (name, os.path.getsize(path))


def named(shapes, dtype=torch.float32):
    return {n: values(n, *s, dtype=dtype) for n, s in shapes.items()}


# ---------------------------------------------------------------- plain state dicts
def plain():
    base = values("shared", 6, 5)
    sliced = torch.zeros(7, 9)
    sliced[2:5, 1:8:2] = values("sliced", 3, 4)
    od = collections.OrderedDict()
    od["float"] = values("float", 3, 4)
    od["transposed"] = values("transposed", 5, 3).t().contiguous().t()          # strides (1, 5)
    od["permuted"] = values("permuted", 2, 3, 4).permute(2, 0, 1).contiguous().permute(1, 2, 0)
    od["sliced"] = sliced[2:5, 1:8:2]                                            # strides (9, 2), offset 19
    od["shared"] = base                                                          # three views of one storage
    od["shared.tail"] = base[4:]
    od["shared.alias"] = base
    od["parameter"] = torch.nn.Parameter(values("parameter", 4, 2))
    od["scalar"] = values("scalar")
    od["empty"] = torch.zeros(0, 3)
    od["half"] = values("half", 5, dtype=torch.float16)
    od["bfloat16"] = values("bfloat16", 3, 3, dtype=torch.bfloat16)
    od["double"] = values("double", 4, dtype=torch.float64) / 3
    od["long"] = values("long", 6, dtype=torch.int64) * 10**12
    od["int"] = values("int", 6, dtype=torch.int32)
    od["short"] = values("short", 6, dtype=torch.int16)
    od["char"] = values("char", 6, dtype=torch.int8)
    od["byte"] = values("byte", 6).abs().to(torch.uint8)
    od["bool"] = values("bool", 6) > 0
    assert not od["transposed"].is_contiguous() and not od["sliced"].is_contiguous()
    save("ordered.pt", od)
    save("protocol4.pt", dict(od), pickle_protocol=4)
    save("protocol5.pt", dict(od), pickle_protocol=5)

    module = torch.nn.Linear(3, 2)
    module.weight.data.copy_(values("weight", 2, 3)), module.bias.data.copy_(values("bias", 2))
    save("module.pt", {"state_dict": module.state_dict(), "epoch": 7, "note": "trained"})  # carries _metadata


# ---------------------------------------------------------------- a tiny audiocraft package
D, LAYERS, K, VOCAB, FFN, TEXT = 24, 2, 4, 16, 40, 20


def lm_shapes():
    s = {f"emb.{k}.weight": (VOCAB + 1, D) for k in range(K)}
    s |= {f"linears.{k}.weight": (VOCAB, D) for k in range(K)}
    s |= {"out_norm.weight": (D,), "out_norm.bias": (D,)}
    c = "condition_provider.conditioners.description.output_proj"
    s |= {f"{c}.weight": (D, TEXT), f"{c}.bias": (D,)}
    for i in range(LAYERS):
        p = f"transformer.layers.{i}"
        for a in ("self_attn", "cross_attention"):
            s |= {f"{p}.{a}.in_proj_weight": (3 * D, D), f"{p}.{a}.out_proj.weight": (D, D)}
        for n in ("norm1", "norm_cross", "norm2"):
            s |= {f"{p}.{n}.weight": (D,), f"{p}.{n}.bias": (D,)}
        s |= {f"{p}.linear1.weight": (FFN, D), f"{p}.linear2.weight": (D, FFN)}
    return s


def codec_shapes(filters=2, latent=3, ratios=(3, 2), kernel=5, last=3, residual=3, codebooks=4, bins=VOCAB):
    s = {}

    def conv(name, out, inp, k, kind="conv"):
        axes = (inp, out) if kind == "convtr" else (out, inp)
        s[f"{name}.{kind}.{kind}.bias"] = (out,)
        s[f"{name}.{kind}.{kind}.weight_g"] = (axes[0], 1, 1)
        s[f"{name}.{kind}.{kind}.weight_v"] = (*axes, k)

    def block(name, width):
        conv(f"{name}.block.1", width // 2, width, residual)
        conv(f"{name}.block.3", width, width // 2, 1)

    def lstm(name, width):
        for layer in (0, 1):
            for part in ("ih", "hh"):
                s[f"{name}.lstm.weight_{part}_l{layer}"] = (4 * width, width)
                s[f"{name}.lstm.bias_{part}_l{layer}"] = (4 * width,)

    conv("encoder.model.0", filters, 1, kernel)
    n, w = 1, filters
    for r in reversed(ratios):
        block(f"encoder.model.{n}", w)
        conv(f"encoder.model.{n + 2}", 2 * w, w, 2 * r)
        n, w = n + 3, 2 * w
    lstm(f"encoder.model.{n}", w)
    conv(f"encoder.model.{n + 2}", latent, w, last)
    conv("decoder.model.0", w, latent, kernel)
    lstm("decoder.model.1", w)
    n = 2
    for r in ratios:
        conv(f"decoder.model.{n + 1}", w // 2, w, 2 * r, "convtr")
        w //= 2
        block(f"decoder.model.{n + 2}", w)
        n += 3
    conv(f"decoder.model.{n + 1}", 1, w, last)
    for q in range(codebooks):
        c = f"quantizer.vq.layers.{q}._codebook"
        s |= {f"{c}.inited": (1,), f"{c}.cluster_size": (bins,), f"{c}.embed": (bins, latent), f"{c}.embed_avg": (bins, latent)}
    return s


LM_CFG = """\
device: cuda
dtype: float32
sample_rate: 300
channels: 1
interleave_stereo_codebooks:
  use: false
  per_timestep: false
transformer_lm:
  dim: 24
  num_heads: 4
  num_layers: 2
  hidden_scale: 4
  n_q: 4
  card: 16
  norm: layer_norm
  norm_first: true
  activation: gelu
  positional_embedding: sin
codebooks_pattern:
  modeling: delay
  delay:
    delays:
    - 0
    - 1
    - 2
    - 3
    flatten_first: 0
"""
CODEC_CFG = """\
sample_rate: 300
channels: 1
encodec:
  autoencoder: seanet
  sample_rate: ${sample_rate}
  causal: false
  renormalize: false
seanet:
  dimension: 3
  channels: ${channels}
  causal: ${encodec.causal}
  pad_mode: reflect
  dilation_base: 2
  decoder:
    trim_right_ratio: 1.0
    final_activation: null
"""


def package(state, cfg, **more):
    return {"best_state": state, "xp.cfg": cfg, "version": "1.2.0", "exported": True, **more}


def audiocraft():
    # the language model was published in half precision
    lm = named(lm_shapes(), torch.float16)
    d = os.path.join(OUT, "audiocraft")
    os.makedirs(d, exist_ok=True)
    torch.save(package(lm, LM_CFG), os.path.join(d, "state_dict.bin"))
    torch.save(package(named(codec_shapes()), CODEC_CFG), os.path.join(d, "compression_state_dict.bin"))
    save("pretrained_codec.bin", {"pretrained": "facebook/encodec_32khz", "exported": True, "version": "1.2.0"})
    melody = {n: s for n, s in lm_shapes().items() if "cross" not in n}
    c = "condition_provider.conditioners.self_wav"
    melody |= {f"{c}.output_proj.weight": (D, 12), f"{c}.output_proj.bias": (D,), f"{c}.chroma.spec.window": (64,)}
    save("melody.bin", package(named(melody, torch.float16), LM_CFG))
    t5 = {"shared.weight": (11, TEXT), "encoder.final_layer_norm.weight": (TEXT,), "decoder.final_layer_norm.weight": (TEXT,)}
    a = "encoder.block.0.layer.0.SelfAttention"
    t5 |= {f"{a}.{p}.weight": (12, TEXT) for p in "qkv"} | {f"{a}.o.weight": (TEXT, 12)}
    t5 |= {f"{a}.relative_attention_bias.weight": (32, 2), "encoder.block.0.layer.0.layer_norm.weight": (TEXT,)}
    f = "encoder.block.0.layer.1"
    t5 |= {f"{f}.DenseReluDense.wi.weight": (20, TEXT), f"{f}.DenseReluDense.wo.weight": (TEXT, 20), f"{f}.layer_norm.weight": (TEXT,)}
    d = os.path.join(OUT, "t5")
    os.makedirs(d, exist_ok=True)
    sd = named(t5)
    sd["encoder.embed_tokens.weight"] = sd["shared.weight"]
    torch.save(sd, os.path.join(d, "pytorch_model.bin"))
    with open(os.path.join(d, "config.json"), "w") as out:
        out.write('{"model_type": "t5", "d_model": 20, "d_kv": 6, "d_ff": 20, "num_heads": 2, "num_layers": 1, "vocab_size": 11}\n')
    with open(os.path.join(d, "tokenizer.json"), "w") as out:
        out.write('{"model": "carried over as it is"}\n')


# ---------------------------------------------------------------- archives that must be refused
def archive(name, pickled, storages=(), byteorder=b"little"):
    """A torch-like archive around any pickle."""
    with zipfile.ZipFile(os.path.join(OUT, name), "w", zipfile.ZIP_STORED) as z:
        def put(path, data):
            z.writestr(zipfile.ZipInfo("archive/" + path, (1980, 1, 1, 0, 0, 0)), data)
        put("data.pkl", pickled)
        put("byteorder", byteorder)
        for key, data in storages:
            put(f"data/{key}", data)
        put("version", b"3\n")


class Call:
    def __init__(self, fn, *args):
        self.fn, self.args = fn, args

    def __reduce__(self):
        return self.fn, self.args


class Point:                                     # an object with attributes, by NEWOBJ and BUILD
    def __init__(self):
        self.x = 1


def text(s):
    return b"X" + struct.pack("<I", len(s)) + s.encode()


def tensor(storage="FloatStorage", key="0", numel=6, offset=0, size=(2, 3), stride=(3, 1)):
    """The opcodes of one tensor, as torch writes them, with any numbers."""
    num = lambda v: b"\x8a\x08" + struct.pack("<q", v)
    tup = lambda vs: b"(" + b"".join(map(num, vs)) + b"t"
    persistent = b"(" + text("storage") + b"ctorch\n" + storage.encode() + b"\n" + text(key) + text("cpu") + num(numel) + b"tQ"
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent + num(offset) + tup(size) + tup(stride)
            + b"\x89ccollections\nOrderedDict\n)RtR")


def state(**tensors):
    return b"\x80\x02}(" + b"".join(text(n) + t for n, t in tensors.items()) + b"u."


def refused():
    os.makedirs(os.path.join(OUT, "refused"), exist_ok=True)
    data = struct.pack("<6f", *range(6))
    put = lambda name, pickled, storages=(("0", data),), **kw: archive("refused/" + name, pickled, storages, **kw)
    put("os_system.pt", pickle.dumps({"w": Call(os.system, "true")}, 2))
    put("os_system_protocol4.pt", pickle.dumps({"w": Call(os.system, "true")}, 4))
    put("eval.pt", pickle.dumps({"w": Call(eval, "1+1")}, 2))
    put("nested.pt", pickle.dumps([[({"a": Call(collections.OrderedDict, [("k", Call(exec, "pass"))])},)]], 2))
    put("load_from_bytes.pt", b"\x80\x02ctorch.storage\n_load_from_bytes\n(" + b"C\x01\x00" + b"tR.")
    put("instance.pt", b"(ios\nsystem\n.")
    put("object.pt", b"\x80\x02c__main__\nPoint\n)\x81}" + text("x") + b"K\x01sb.")
    put("build_on_dict.pt", b"\x80\x02}}" + text("x") + b"K\x01sb.")
    put("storage_call.pt", b"\x80\x02ctorch\nFloatStorage\n(K\x08tR.")
    put("call_of_tensor.pt", b"\x80\x02" + tensor() + b")R.")
    put("extension.pt", b"\x80\x02\x82\x01.")
    put("memo_huge.pt", b"\x80\x02}r\xff\xff\xff\x7f.")
    put("memo_unwritten.pt", b"\x80\x02h\x07.")
    put("nesting.pt", b"\x80\x02" + b"(" * 5000 + b"t" * 5000 + b".")
    put("dict_bomb.pt", b"\x80\x02](" + b"](NNe" * 1000 + b"eq\x00ccollections\nOrderedDict\nq\x01" + b"0" * 2
        + b"(" + b"h\x01h\x00\x85R" * 1000 + b"t.")
    put("truncated_pickle.pt", state(w=tensor())[:-20])
    put("length_lie.pt", b"\x80\x02X\xff\xff\xff\x7fab.")
    put("long_lie.pt", b"\x80\x02\x8b\xff\xff\xff\x7f.")
    put("frame_lie.pt", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.")
    put("protocol_9.pt", b"\x80\x09N.")
    put("opcode.pt", b"\x80\x02\xff.")
    put("empty_pickle.pt", b"")
    put("stack_left.pt", b"\x80\x02NN.")
    put("storage_missing.pt", state(w=tensor(key="7")))
    put("storage_path.pt", state(w=tensor(key="../0")))
    put("storage_short.pt", state(w=tensor(numel=7)))
    put("storage_huge.pt", state(w=tensor(numel=1 << 62)))
    put("beyond_storage.pt", state(w=tensor(offset=1)))
    put("stride_overflow.pt", state(w=tensor(stride=((1 << 62), 1))))
    put("negative_stride.pt", state(w=tensor(stride=(-3, 1))))
    put("expanded.pt", state(w=tensor(size=(1 << 20, 1 << 20), stride=(0, 0))))
    put("rank.pt", state(w=tensor(size=(1,) * 9, stride=(1,) * 9)))
    put("strides_short.pt", state(w=tensor(stride=(1,))))
    put("big_endian.pt", state(w=tensor()), byteorder=b"big")
    put("no_tensors.pt", pickle.dumps({"lr": 0.1}, 2))
    put("a_list.pt", pickle.dumps([1, 2], 2))
    torch.save({"w": values("w", 3)}, os.path.join(OUT, "refused/legacy.pt"), _use_new_zipfile_serialization=False)
    with open(os.path.join(OUT, "refused/bare.pt"), "wb") as f:
        f.write(pickle.dumps({"a": 1}, 2))
    with open(os.path.join(OUT, "refused/empty.pt"), "wb"):
        pass
    buf = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), buf)
    with open(os.path.join(OUT, "refused/torchscript.pt"), "wb") as f:
        f.write(buf.getvalue())
    whole = open(os.path.join(OUT, "module.pt"), "rb").read()
    with open(os.path.join(OUT, "refused/truncated_zip.pt"), "wb") as f:
        f.write(whole[: len(whole) // 2])
    # one flipped bit in a storage: the checksum tells
    put("bit_flip.pt", state(w=tensor()))
    path = os.path.join(OUT, "refused/bit_flip.pt")
    raw = bytearray(open(path, "rb").read())
    raw[raw.index(data) + 5] ^= 1
    open(path, "wb").write(raw)


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    plain(), audiocraft(), refused()
    print("".join(f"{os.path.getsize(os.path.join(r, f)):8d} {os.path.relpath(os.path.join(r, f), OUT)}\n"
                  for r, _, fs in sorted(os.walk(OUT)) for f in sorted(fs)))
