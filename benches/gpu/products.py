"""Matrix products in WGSL beside the same in PTX on one device: products.py PTX_BENCH WGSL_BENCH (`auscult bench --json`).

A line for each product that both ran: the form and rate of each, and the share that WGSL reaches. Ends with 1 where there
is none.
"""

import json
import sys


def products(file):
    """Rate in 10^12 a second and form of every matrix product, by kernel and name of shape."""
    with open(file, encoding="utf-8") as opened:
        lines = json.load(opened)["lines"]
    return {
        (line["kernel"], line["why"]): (line["tflop_per_s"], line["form"])
        for line in lines
        if line["kernel"].startswith("linear")
    }


def main():
    ptx, wgsl = (products(file) for file in sys.argv[1:3])
    both = [key for key in ptx if key in wgsl]
    for kernel, why in both:
        (rate, form), (other, other_form) = ptx[kernel, why], wgsl[kernel, why]
        print(f"{kernel}  {why} | {other_form} {other:.2f} TFLOP/s | {form} {rate:.2f} | {100 * other / rate:.0f} %")
    return 0 if both else 1


if __name__ == "__main__":
    sys.exit(main())
