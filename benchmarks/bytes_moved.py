"""Bytes that restoring a whole frame moves, beside those of its network, and what folding saves of these: no GPU is needed.

Counted on the meta device, and where methods run otherwise than they are counted, on fake tensors of a GPU.

python benchmarks/bytes_moved.py
"""

import argparse
import sys

import torch
from rich.console import Console
from rich.table import Table
from torch._subclasses.fake_tensor import FakeTensorMode

from ntire.benchmark import traffic
from ntire.method import Method, catalogue
from ntire.method.count import on_meta
from ntire.teams.parts.restormer import restormer

FRAMES = (
    ("MiAlgo", "srgb", (3040, 4032)),
    ("TongJi-IPOE", "srgb", (3072, 4096)),
    ("NulltoZero", "srgb", (3072, 4096)),
    ("MiAlgo", "raw", (3072, 4096)),
    ("TongJi-IPOE", "raw", (3072, 4096)),
)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    out = Console(width=None if sys.stdout.isatty() else 160)
    out.print(conversions())
    out.print(folded())


def conversions() -> Table:
    """Between the integers of a picture and those of its result, over the network's own bytes."""
    table = Table("network", "size", "GB, network", "GB, all", "ratio", "of it the border", box=None, pad_edge=False)
    for team, track, (height, width) in FRAMES:
        kind = catalogue.find(team, track)
        method = on_meta(kind, deployed=False).bfloat16()
        alone, around = (_network(method, height + more, width + more) for more in (0, 2 * kind.border))
        whole = traffic.of_picture(method, traffic.picture_on_meta(kind, height, width)).eager
        table.add_row(
            f"{team} {track}",
            f"{height} x {width}",
            f"{alone / 1e9:.2f}",
            f"{whole / 1e9:.2f}",
            f"{whole / alone:.3f}",
            f"{around / alone - 1:.3f}",
        )
    return table


FOLDED = (
    ("MiAlgo", "srgb", (3040, 4032)),
    ("NulltoZero", "srgb", (3072, 4096)),
    ("NJUST-KMG", "srgb", (3072, 4096)),
    ("NJUST-KMG", "raw", (3072, 4096)),
)


def folded() -> Table:
    """Networks as they are trained and as they run: wavelets in their convolutions, attention in its projection."""
    table = Table("network", "size", "GB, as trained", "GB, as it runs", "ratio", box=None, pad_edge=False)

    def row(name: str, height: int, width: int, trained: int, runs: int) -> None:
        figures = f"{trained / 1e9:.2f}", f"{runs / 1e9:.2f}", f"{runs / trained:.3f}"
        table.add_row(name, f"{height} x {width}", *figures)

    for team, track, (height, width) in FOLDED:
        kind = catalogue.find(team, track)
        both = (_network(on_meta(kind, deployed=once).bfloat16(), height, width) for once in (False, True))
        row(f"{team} {track}", height, width, *both)
    with FakeTensorMode(), torch.device("cuda"):
        network, x = restormer(3, 3).requires_grad_(False), torch.empty(1, 3, 1024, 1024)
        both = (traffic.of_network(network.train(training), x).eager for training in (True, False))
        row("Restormer, float32", 1024, 1024, *both)
    return table


def _network(method: Method, height: int, width: int) -> int:
    lq = torch.empty(1, method.lq_channels(), height, width, dtype=method.dtype, device="meta")
    return traffic.of_network(method, lq).eager


if __name__ == "__main__":
    main()
