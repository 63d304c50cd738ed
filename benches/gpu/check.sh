#!/bin/sh
# Everything that only a GPU can show, on a machine that has one and no Rust: prebuilt programs are carried there.
#
#     cargo build --release && cargo bench --bench capture --bench generate --bench sae --bench train --no-run
#     cargo test --release --no-run --test parity --test golden_model --test golden_text --test golden_sae \
#         --test golden_generate --test hooks --test splice --test training
#     (copy target/release/auscult, and of deps/ parity-*, golden_model-*, golden_text-*, golden_sae-*, golden_generate-*,
#     hooks-*, splice-*, training-*, capture-*, generate-*, sae-* and train-* under the names before the dash, into one folder)
#     benches/gpu/check.sh BIN [OUT]
#
# Parity of every PTX form on cuda, compute-sanitizer over it, the goldens of models, text, autoencoders and generation, hooks,
# splices and training, doctor, bench, the main job with autoencoders and without, music out, encoding and training of
# autoencoders, and the peers in torch; and on the same device through Vulkan parity and bench of WGSL, its cooperative matrices
# included, beside PTX. Logs go to OUT (gpu-check
# by default); what they come to goes to OUT/DATE-DEVICE.txt, and into benches/record/ where that can be written. Ends with
# 1 if anything failed or could not be run. `SKIP="peer sanitizer"` leaves steps out, and the record says so; `ONLY="sae train"`
# leaves out all others, for machines that end a command early: give each part an OUT of its own. Both take names of steps,
# or what stands before a dash in them: `ONLY="capture"`, `ONLY="sae peer-sae"` and `ONLY="train peer-train"` are what autoencoders
# cost.
# PYTHON is the interpreter with torch (python3); SANITIZER_FILTER narrows what the sanitizers see ("::cuda").
set -u

here=$(cd "$(dirname "$0")/../.." && pwd)
[ $# -ge 1 ] || { sed -n '2,20s/^# \{0,1\}//p' "$0"; exit 2; }
bin=$(cd "$1" && pwd) || exit 2
out=${2:-gpu-check}
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
device=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1)
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -1)
commit=$(git -C "$here" rev-parse HEAD 2>/dev/null || echo unknown)
name=$(printf '%s' "${device:-no-gpu}" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
# the record of a part stands beside those of others
record=$out/$(date +%F)-$name${ONLY:+-$(printf '%s' "$ONLY" | tr ' ' '-')}.txt
failed=0

say() { printf '%s\n' "$*" | tee -a "$record"; }

# whether a list has the step, or what stands before one of its dashes
named() {
    for named in $1; do
        case "$step-" in "$named"-*) return 0 ;; esac
    done
    return 1
}

# step NAME COMMAND...: its output to NAME.log, one line into the record; true if it passed
step() {
    step=$1
    shift
    if named "${SKIP:-}" || { [ -n "${ONLY:-}" ] && ! named "$ONLY"; }; then
        say "$step: left out"
        return 1
    fi
    started=$(date +%s)
    "$@" >"$out/$step.log" 2>&1
    status=$?
    taken=$(($(date +%s) - started))
    if [ $status -eq 0 ]; then
        say "$step: passed in $taken s"
    else
        failed=1
        say "$step: FAILED with $status in $taken s"
        tail -n 25 "$out/$step.log" | sed 's/^/    /' | tee -a "$record"
    fi
    return $status
}

# the trials of the executor and no others; their absence must not pass for success
parity() { AUSCULT_REQUIRE_CUDA=1 "$bin/parity" ::cuda "$@" && grep -q ' [1-9][0-9]* passed' "$out/$step.log"; }

# the same on the device's Vulkan; forms for cooperative matrices that would not run are failures
wgsl() {
    AUSCULT_REQUIRE_WGPU=1 AUSCULT_REQUIRE_MATRICES=1 "$bin/parity" ::wgpu "$@" &&
        grep -q ' [1-9][0-9]* passed' "$out/$step.log"
}

sanitize() {
    tool=$1
    shift
    # errors that a call returns are what some checks provoke; those checks are left out, as is all but the kernels
    AUSCULT_REQUIRE_CUDA=1 compute-sanitizer --tool "$tool" --error-exitcode 9 --report-api-errors no "$@" \
        "$bin/parity" "${SANITIZER_FILTER:-::cuda}" --skip device:: --test-threads 1 &&
        grep -q ' [1-9][0-9]* passed' "$out/$step.log"
}

# the trials of a program on cuda and no others; the goldens lie below the repository's root
whole() {
    (cd "$here" && AUSCULT_REQUIRE_CUDA=1 "$bin/$1" cuda::) && grep -q ' [1-9][0-9]* passed' "$out/$step.log"
}

# json FILE COMMAND...: stdout to FILE, the rest to the step's log
json() {
    file=$1
    shift
    "$@" >"$out/$file"
}

: >"$record"
say "date $(date -u +%FT%TZ); device ${device:-none}; driver ${driver:-none}; commit $commit"
say "program: $("$bin/auscult" --version 2>&1)"

step parity parity
for tool in memcheck racecheck initcheck synccheck; do
    step "sanitizer-$tool" sanitize "$tool"
done
for program in golden_model golden_text golden_sae golden_generate hooks splice training; do
    step "$program" whole "$program"
done
step wgsl-parity wgsl
step doctor "$bin/auscult" --device cuda doctor && sed 's/^/    /' "$out/doctor.log" >>"$record"
step bench json bench.json "$bin/auscult" --device cuda bench --json
# in the types that cuda has by default, so that the same products stand side by side
step wgsl-bench json bench-wgpu.json "$bin/auscult" --device wgpu --precision f16 bench --json
step wgsl-products "$python" "$here/benches/gpu/products.py" "$out/bench.json" "$out/bench-wgpu.json" &&
    cat "$out/wgsl-products.log" >>"$record"
step capture json capture.json "$bin/capture" --device cuda --precision f16 --clips 64 --repeat 5 \
    --features 32768 --sae-precision f32,bf16
step peer "$python" "$here/benches/peers/torch_gpu.py" --ours "$out/bench.json" --ours "$out/capture.json" \
    --out "$out/peer.json" && sed -n '/ratio  unit/,$p' "$out/peer.log" >>"$record"
step generate json generate.json "$bin/generate" --device cuda --precision f16 --takes 1,64 --repeat 3 &&
    cat "$out/generate.json" >>"$record"
step peer-generate json peer-generate.json "$python" "$here/benches/peers/torch_generate.py" --device cuda --dtype f16 \
    --takes 1,64 --repeat 3 && cat "$out/peer-generate.json" >>"$record"
# the width and the number of features of published autoencoders
for precision in "" " bf16"; do
    step "sae${precision:+-bf16}" json "sae${precision:+-bf16}.json" "$bin/sae" --device cuda:0 --rows 65536 --width 1024 \
        --features 32768 --k 100 --only "encode$precision" && cat "$out/$step.json" >>"$record"
done
step peer-sae json peer-sae.json "$python" "$here/benches/peers/torch_sae.py" --device cuda --dtype bfloat16 --compile \
    --rows 65536 --width 1024 --features 32768 --k 100 && cat "$out/peer-sae.json" >>"$record"
step train json train.json "$bin/train" --device cuda:0 --batch 64,4096 --width 1024 --features 32768 --k 100 --steps 50 &&
    cat "$out/train.json" >>"$record"
for dtype in float32 bfloat16; do
    step "peer-train-$dtype" json "peer-train-$dtype.json" "$python" "$here/benches/peers/torch_train.py" --device cuda \
        --dtype "$dtype" --fused --compile --batch 64,4096 --width 1024 --features 32768 --k 100 --steps 50 &&
        cat "$out/$step.json" >>"$record"
done
[ -s "$out/bench.json" ] && "$python" - "$out/bench.json" >>"$record" <<'PY'
import json, sys
report = json.load(open(sys.argv[1]))
ceiling = report["ceiling"]
print("ceilings: " + ", ".join(f"{name} {value:.1f}" for name, value in ceiling.items()))
for line in report["lines"]:
    shares = f'{100 * line["copy_share"]:.0f} % of copy'
    if line["tflop_per_s"] is not None:
        shares += f', {line["tflop_per_s"]:.2f} TFLOP/s ({100 * line["matrix_share"]:.0f} %)'
    print(f'{line["kernel"]}  {line["why"]} | {line["form"]} | {line["us"]:.1f} us | {line["gb_per_s"]:.1f} GB/s, {shares}')
PY
[ -s "$out/capture.json" ] && cat "$out/capture.json" >>"$record"
if [ $failed -eq 0 ]; then say "all passed"; else say "something failed"; fi
cp "$record" "$here/benches/record/" 2>/dev/null || echo "the record is $record"
exit $failed
