"""Compiles every kernel to PTX for an H100 or H200, which needs no GPU; writes the names of those done.

Run by test_kernels_compile.py in a process of its own, without Triton's interpreter.
"""

import sys

import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from haste.kernels.triton import (
    dense,
    densify,
    dropout,
    fixed,
    group_linear,
    group_step,
    group_topk,
    packed_attention,
    residual,
)

HALF, WIDE, INDEX = "*bf16", "*fp32", "*i32"
IN_MEMORY = {"lr": WIDE, "step": INDEX}
"""numbers as a CUDA graph is captured with them"""
TYPES = {
    **dict.fromkeys(("x_ptr", "w_ptr", "bias_ptr", "dz_ptr", "old_w_ptr", "dense_ptr"), HALF),
    **dict.fromkeys(("momentum_ptr", "bias_momentum_ptr", "out_ptr"), HALF),
    **dict.fromkeys(("dx_ptr", "loss_ptr", "dw_ptr"), WIDE),
    **dict.fromkeys(("index_ptr", "bounds_ptr", "bound_ptr", "block_ptr"), INDEX),
    **dict.fromkeys(("label_ptr", "doc_ptr"), INDEX),
    "value_ptr": HALF,
    **dict.fromkeys(("lr", "momentum", "decay", "scale"), "fp32"),
    **dict.fromkeys(("seed", "total"), "i64"),
    "targets_ptr": "*i8",
    "inverse_ptr": "*u8",
    "mask_ptr": "*u8",
}
GROUP = {"G": 16, "F": 32, "BLOCK_SIZE": 1, "BLOCK_B": 32, "NUM_TILES": 2}
PRODUCT = {"DOT_DTYPE": tl.bfloat16, "PRECISION": "ieee"}
UPDATE = {"HAS_MOMENTUM": True, "STOCHASTIC": True, "ROUNDS": 7}
EXACT = {"BF16_LOSS": False}
WALK = {
    **GROUP,
    **PRODUCT,
    **UPDATE,
    **EXACT,
    "PADDED": True,
    "NUM_COPIES": 4,
    "NUM_STAGES": 2,
    "DENSIFY": False,
}
ATTENTION = {"T": 32, "D": 32, "DROPOUT": True, "ROUNDS": 7, **PRODUCT}
BIASED = {**ATTENTION, "BIASED": True}
UNBIASED = {**ATTENTION, "BIASED": False, "bias_ptr": None}
HEADS = {
    **dict.fromkeys(("qkv_ptr", "dqkv_ptr", "do_ptr"), HALF),
    "bounds_ptr": INDEX,
    "ds_ptr": WIDE,
    "seed": "*i64",
    "boost": "fp32",
}
ROWS = {"R": 4, "C": 1024, "ROUNDS": 7}
NORM = {
    **dict.fromkeys(("a_ptr", "gamma_ptr", "beta_ptr", "z_ptr", "y_ptr", "dy_ptr"), HALF),
    **dict.fromkeys(("u_ptr", "dg_ptr", "first_ptr", "second_ptr", "third_ptr"), HALF),
    "sums_ptr": WIDE,
    "seed": "*i64",
    "eps": "fp32",
    "boost": "fp32",
}
FREE = {"POSITIVES": False, "BY_PAIR": False, "targets_ptr": None}
ATOMIC = {"dz_ptr": None, "old_w_ptr": None}
DENSIFIED = {"DENSIFY": True, "dx_ptr": None}
DENSE_DX = {"G": 16, "F": 32, "BLOCK_B": 64, "BLOCK_H": 64, "BLOCK_L": 32, "NONE": 255}
LOSS = {
    **{"BLOCK_L": 64, "BLOCK_B": 128, "BLOCK_H": 32, "NUM_TILES": 2},
    **{"EVEN": False, "STAGES": 3, "PADDED": True, "HAS_POSITIVES": True},
}
UPDATE_TILE = {
    **{"BLOCK_L": 64, "BLOCK_H": 64, "BLOCK_B": 32},
    **{"EVEN": False, "STAGES": 3, "HAS_MASK": True},
}
DW = {"dw_ptr": HALF}


def case(kernel, *parts, types=None, **constants):
    """A kernel with compile-time constants; `types` of its arguments besides TYPES."""
    return (
        kernel,
        {key: value for part in (*parts, constants) for key, value in part.items()},
        types or {},
    )


CASES = [
    case(group_step._step_kernel, WALK, FREE, ATOMIC, UNROLL=True),
    case(group_step._step_kernel, WALK, FREE, ATOMIC, UNROLL=True, types={"w_ptr": "*u8"}),
    case(group_step._step_kernel, WALK, FREE, ATOMIC, UNROLL=True, BF16_LOSS=True, types=IN_MEMORY),
    case(group_step._step_kernel, WALK, ATOMIC, POSITIVES=True, BY_PAIR=True, UNROLL=False),
    case(group_step._step_kernel, WALK, DENSIFIED, POSITIVES=True, BY_PAIR=False, UNROLL=True),
    case(group_step._mark_positives, G=16, BLOCK=256, BY_PAIR=True),
    *(
        case(group_linear._forward, GROUP, PRODUCT, BATCH_FIRST=first, NUM_STAGES=2)
        for first in (True, False)
    ),
    *(
        case(
            group_linear._backward_dw, GROUP, PRODUCT, FEATURES_FIRST=first, NUM_STAGES=2, types=DW
        )
        for first in (True, False)
    ),
    case(group_linear._backward_dx, GROUP, PRODUCT, NUM_STAGES=2, NUM_COPIES=4),
    case(group_topk._block_maxima, GROUP, PRODUCT, GROUPS=8, types={"out_ptr": WIDE}),
    case(
        group_topk._block_logits,
        G=16,
        F=32,
        BLOCK_SIZE=1,
        GROUPS=8,
        types={"w_ptr": "*u8", "out_ptr": WIDE},
    ),
    case(densify._invert, F=32, BLOCK_SIZE=1, PADDED_H=512, NONE=255),
    case(densify._dense_dx_kernel, PRODUCT, DENSE_DX, BY_ROW=False),
    case(densify._dense_dx_kernel, PRODUCT, DENSE_DX, BY_ROW=True),
    case(densify._densify_kernel, F=32, BLOCK_L=2, PADDED_H=512, REPEATED=False),
    case(
        densify._densify_kernel,
        F=32,
        BLOCK_L=2,
        PADDED_H=512,
        REPEATED=True,
        types={"out_ptr": WIDE},
    ),
    case(densify._gather_columns_kernel, F=32, BLOCK=1024),
    case(fixed._forward, F=32, BLOCK_L=16, BLOCK_B=64, BLOCK_F=8),
    case(dense._loss_and_dz, PRODUCT, UPDATE, LOSS, BF16_LOSS=False),
    case(dense._loss_and_dz, PRODUCT, UPDATE, LOSS, BF16_LOSS=True, types=IN_MEMORY),
    case(dense._positives, EXACT, PADDED_H=512),
    case(dense._positives, PADDED_H=512, BF16_LOSS=True),
    case(dense._update, PRODUCT, UPDATE, UPDATE_TILE, NUM_TILES=1),
    case(dense._update, PRODUCT, UPDATE, UPDATE_TILE, NUM_TILES=1, types={"w_ptr": "*u8"}),
    case(dense._update, PRODUCT, UPDATE, UPDATE_TILE, NUM_TILES=2, dx_ptr=None, types=IN_MEMORY),
    case(dense._update_gathered, UPDATE, BLOCK_L=8, F=32),
    case(dense._update_gathered, UPDATE, BLOCK_L=8, F=32, types=IN_MEMORY),
    case(dropout._scale_or_zero, BLOCK=1024, ROUNDS=7, types={"x_ptr": HALF}),
    case(dropout._scale_or_zero, BLOCK=1024, ROUNDS=7, types={"x_ptr": HALF, **IN_MEMORY}),
    case(packed_attention._attend_packed, UNBIASED, types=HEADS),
    case(packed_attention._attend_packed, BIASED, types=HEADS),
    case(packed_attention._attend_packed_backward, UNBIASED, ds_ptr=None, types=HEADS),
    case(packed_attention._attend_packed_backward, BIASED, types=HEADS),
    case(residual._add_norm, ROWS, DROPOUT=True, types=NORM),
    case(residual._add_norm, ROWS, DROPOUT=False, seed=None, types=NORM),
    case(residual._norm_backward, {**ROWS, "R": 1}, DROPOUT=True, types=NORM),
    case(residual._gelu_backward, TOKENS=64, R=8, C=256, types=NORM),
    case(residual._column_sums, R=128, C=16, types=NORM),
]


def main() -> None:
    for kernel, constants, types in CASES:
        names = kernel.arg_names
        types = {**TYPES, **types}
        signature = {
            name: "constexpr" if name in constants else types.get(name, "i32") for name in names
        }
        values = {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(kernel, signature, values)
        built = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
        if ".entry" in built.asm["ptx"]:
            sys.stdout.write(f"{kernel.__module__.split('.')[-1]}.{kernel.__name__}\n")


if __name__ == "__main__":
    main()
