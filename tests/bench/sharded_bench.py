"""The benchmark of several processes, of a few thousand labels on a CPU."""

import sys
from pathlib import Path

import torch
from test_bench_scale import PAPER, tiny

from haste.bench.sharded import Bench
from haste.distributed import launched
from haste.grid import read_grid


def main() -> None:
    workload = tiny(read_grid([PAPER]))
    with launched("cpu") as ranks:
        Bench(Path(sys.argv[1]), ranks, torch.device("cpu")).run({"tiny": workload}, [3001])
