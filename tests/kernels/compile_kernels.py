"""Compiles every kernel to PTX for an H100 or H200, which needs no GPU; writes the names of those done.

Run by test_kernels_compile.py in a process of its own, without Triton's interpreter.
"""

import sys

import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from haste.kernels.triton import (
    attention,
    dense,
    densify,
    dropout,
    fixed,
    group_linear,
    group_step,
)

HALF, WIDE, INDEX = "*bf16", "*fp32", "*i32"
IN_MEMORY = {"lr": WIDE, "step": INDEX}
"""numbers as a CUDA graph is captured with them"""
TYPES = {
    **dict.fromkeys(("h", "w", "bias", "velocity", "bias_velocity", "dz", "dz_slab"), HALF),
    **dict.fromkeys(("w_slab", "dense"), HALF),
    **dict.fromkeys(("grad", "loss", "gradient"), WIDE),
    **dict.fromkeys(("index", "bounds", "label", "row"), INDEX),
    **dict.fromkeys(("lr", "momentum", "decay", "scale"), "fp32"),
    **dict.fromkeys(("seed", "total"), "i64"),
    "targets": "*i8",
    "inverse": "*u8",
    "mask": "*u8",
    "out": HALF,
}
GROUP = {"G": 16, "F": 32, "BLOCK_SIZE": 1, "BB": 32, "TILES": 2}
PRODUCT = {"DOT": tl.bfloat16, "PRECISION": "ieee"}
UPDATE = {"HAS_MOMENTUM": True, "STOCHASTIC": True, "ROUNDS": 7}
EXACT = {"BF16_LOSS": False}
WALK = {
    **GROUP,
    **PRODUCT,
    **UPDATE,
    **EXACT,
    "PADDED": True,
    "NCOPIES": 4,
    "STAGES": 2,
    "DENSIFY": False,
}
ATTENTION = {"T": 32, "D": 32, "DROPOUT": True, "ROUNDS": 7, **PRODUCT}
BACKWARD = dict.fromkeys(("gradient", "grad_q", "grad_k", "grad_v"), HALF)
HEADS = {**dict.fromkeys(("q", "k", "v"), HALF), "keys": "*u8", "seed": "*i64", "boost": "fp32"}
FREE = {"POSITIVES": False, "BY_PAIR": False, "targets": None}
ATOMIC = {"dz_slab": None, "w_slab": None}
CASES = [
    (group_step._walk, {**WALK, **FREE, **ATOMIC, "UNROLL": True}, {}),
    (group_step._walk, {**WALK, **FREE, **ATOMIC, "UNROLL": True}, {"w": "*u8"}),
    (
        group_step._walk,
        {**WALK, **FREE, **ATOMIC, "UNROLL": True, "BF16_LOSS": True},
        IN_MEMORY,
    ),
    (
        group_step._walk,
        {**WALK, **ATOMIC, "POSITIVES": True, "BY_PAIR": True, "UNROLL": False},
        {},
    ),
    (
        group_step._walk,
        {
            **WALK,
            "POSITIVES": True,
            "BY_PAIR": False,
            "UNROLL": True,
            "DENSIFY": True,
            "grad": None,
        },
        {},
    ),
    (group_step._mark, {"G": 16, "N": 256, "BY_PAIR": True}, {}),
    (group_linear._forward, {**GROUP, **PRODUCT, "BATCH_FIRST": True, "STAGES": 2}, {}),
    (group_linear._forward, {**GROUP, **PRODUCT, "BATCH_FIRST": False, "STAGES": 2}, {}),
    (group_linear._grad_weight, {**GROUP, **PRODUCT, "FEATURES_FIRST": True, "STAGES": 2}, {}),
    (group_linear._grad_weight, {**GROUP, **PRODUCT, "FEATURES_FIRST": False, "STAGES": 2}, {}),
    (
        group_linear._grad_features,
        {**GROUP, **PRODUCT, "STAGES": 2, "NCOPIES": 4},
        {"out": WIDE},
    ),
    (densify._invert, {"F": 32, "BLOCK_SIZE": 1, "HP": 512, "NONE": 255}, {}),
    (
        densify._dense_dx_kernel,
        {"G": 16, "F": 32, "BB": 64, "HT": 64, "LT": 32, "NONE": 255, "BY_ROW": False, **PRODUCT},
        {"out": WIDE},
    ),
    (
        densify._dense_dx_kernel,
        {"G": 16, "F": 32, "BB": 64, "HT": 64, "LT": 32, "NONE": 255, "BY_ROW": True, **PRODUCT},
        {"out": WIDE},
    ),
    (densify._densify_kernel, {"F": 32, "R": 2, "HP": 512, "REPEATED": False}, {}),
    (densify._densify_kernel, {"F": 32, "R": 2, "HP": 512, "REPEATED": True}, {"out": WIDE}),
    (densify._gather_columns_kernel, {"F": 32, "N": 1024}, {}),
    (fixed._forward, {"F": 32, "R": 16, "BB": 64, "U": 8}, {}),
    (
        dense._loss_and_gradient,
        {"LT": 64, "BB": 128, "KT": 32, "PADDED": True, **PRODUCT, **EXACT},
        {},
    ),
    (
        dense._loss_and_gradient,
        {"LT": 64, "BB": 128, "KT": 32, "PADDED": True, **PRODUCT, "BF16_LOSS": True},
        {},
    ),
    (dense._add_positives, {"HP": 512, **EXACT}, {}),
    (dense._add_positives, {"HP": 512, "BF16_LOSS": True}, {}),
    (
        dense._update,
        {"LT": 64, "HT": 64, "BB": 32, "TILES": 2, "HAS_MASK": True, **PRODUCT, **UPDATE},
        {},
    ),
    (
        dense._update,
        {"LT": 64, "HT": 64, "BB": 32, "TILES": 2, "HAS_MASK": True, **PRODUCT, **UPDATE},
        IN_MEMORY,
    ),
    (dense._update_bias, {"R": 32, "W": 64, **UPDATE}, {"velocity": HALF}),
    (dense._update_bias, {"R": 32, "W": 64, **UPDATE}, {"velocity": HALF, **IN_MEMORY}),
    (dense._update_sampled, {"R": 8, "F": 32, **UPDATE}, {}),
    (dense._update_sampled, {"R": 8, "F": 32, **UPDATE}, IN_MEMORY),
    (dropout._scale_or_zero, {"N": 1024, "ROUNDS": 7}, {"x": HALF}),
    (dropout._scale_or_zero, {"N": 1024, "ROUNDS": 7}, {"x": HALF, **IN_MEMORY}),
    (attention._attend, ATTENTION, HEADS),
    (attention._attend_backward, ATTENTION, {**HEADS, **BACKWARD}),
]


def main() -> None:
    for kernel, constants, types in CASES:
        names = kernel.arg_names
        own = {**TYPES, **types}
        signature = {
            name: "constexpr" if name in constants else own.get(name, "i32") for name in names
        }
        values = {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(kernel, signature, values)
        built = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
        if ".entry" in built.asm["ptx"]:
            sys.stdout.write(f"{kernel.__module__.split('.')[-1]}.{kernel.__name__}\n")


if __name__ == "__main__":
    main()
