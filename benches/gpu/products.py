"""Matrix products in WGSL beside the same in PTX on one device: products.py PTX_BENCH WGSL_BENCH (`auscult bench --json`).

A line for each product of a published model's shape that both ran: the form and rate of each, and the share that WGSL
reaches; then the least and the mean share. Ends with 1 where there is none. An adapter that does not multiply matrices of f16
runs another kernel over the same shapes, f32 by f16: the line names both.
"""

import json
import math
import sys


def products(file):
    """The lines of matrix products at named shapes, by name and shapes."""
    with open(file, encoding="utf-8") as opened:
        lines = json.load(opened)["lines"]
    return {
        (line["why"], json.dumps(line["shapes"])): line
        for line in lines
        if line["kernel"].startswith("linear") and line["why"].startswith("musicgen-")
    }


def told(line):
    return f'{line["kernel"]} {line["form"]} {line["tflop_per_s"]:.2f} TFLOP/s'


def main():
    ptx, wgsl = (products(file) for file in sys.argv[1:3])
    shares = []
    for key in (key for key in ptx if key in wgsl):
        shares.append(wgsl[key]["tflop_per_s"] / ptx[key]["tflop_per_s"])
        print(f"{key[0]} | WGSL {told(wgsl[key])} | PTX {told(ptx[key])} | {100 * shares[-1]:.0f} %")
    if not shares:
        print("no product of a published shape is in both, expected the same shapes from both executors")
        return 1
    mean = math.exp(sum(map(math.log, shares)) / len(shares))
    print(
        f"the same matrix products in WGSL on that GPU's Vulkan vs our PTX: {100 * min(shares):.0f} % at least, "
        f"{100 * mean:.0f} % in the geometric mean of {len(shares)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
