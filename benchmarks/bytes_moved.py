"""Bytes that restoring a whole frame moves, beside those of its network, counted on the meta device: no GPU is needed.

python benchmarks/bytes_moved.py
"""

import argparse
import sys

import torch
from rich.console import Console
from rich.table import Table

from ntire.benchmark import traffic
from ntire.method import Method, catalogue
from ntire.method.count import on_meta

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


def conversions() -> Table:
    """Between the integers of a picture and those of its result, over the network's own bytes."""
    table = Table("network", "size", "GB, network", "GB, all", "ratio", "of it the border", box=None, pad_edge=False)
    for team, track, (height, width) in FRAMES:
        kind = catalogue.find(team, track)
        method = on_meta(kind).bfloat16()
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


def _network(method: Method, height: int, width: int) -> int:
    lq = torch.empty(1, method.lq_channels(), height, width, dtype=method.dtype, device="meta")
    return traffic.of_network(method, lq).eager


if __name__ == "__main__":
    main()
