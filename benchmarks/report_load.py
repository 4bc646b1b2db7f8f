"""How long `ntire report` takes over a whole challenge, and how large its pages are without full pictures.

    python benchmarks/report_load.py PHOTOGRAPHS [--entries 30] [--images 450] [--results DIR]

PHOTOGRAPHS is a folder of pictures, of which 60 become PNGs of 512 x 512 as OpenCV writes them; truth, inputs and entries are
hard links to those. They are scored by PSNR first, which is not timed; `--results` keeps what was made for another time.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2

from ntire.commands.reporting import report
from ntire.environment import usable_cores
from ntire.sandbox.limits import cpu_seconds_of, family

POOL, SIDE = 60, 512
RULES = """
name = "load"
title = "Load"
inputs = "srgb"
subsets = {{ all = {images} }}
metrics = ["psnr"]
terms = [{{ metric = "psnr", scale = 1.0 }}]
source = "none"
"""
MANIFEST = 'team = "team {0}"\ntrack = "load"\ndate = 2026-01-01\n'


def make_results(photographs: Path, place: Path, entries: int, images: int) -> Path:
    """Scored entries below `place`; returns their folder of tables."""
    pool = [_as_png(path, place / "pool") for path in sorted(photographs.iterdir())[:POOL]]
    folders = [place / "gt" / "all", place / "lq" / "all"]
    folders += [place / "uploads" / f"entry-{number:02}" / "images" / "all" for number in range(entries)]
    for shift, folder in enumerate(folders):
        folder.mkdir(parents=True)
        for number in range(images):
            os.link(pool[(number + shift) % len(pool)], folder / f"{number:04}.png")
    for number in range(entries):
        (place / "uploads" / f"entry-{number:02}" / "submission.toml").write_text(MANIFEST.format(number))
    (place / "load.toml").write_text(RULES.format(images=images))
    words = ["score", "uploads", "--track", "load.toml", "--gt", "gt", "--lq", "lq", "-o", "results", "--quiet"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / "cache")}
    subprocess.run([sys.executable, "-m", "ntire", *words], cwd=place, env=environment, check=True)
    return place / "results"


def _as_png(photograph: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{photograph.stem}.png"
    cv2.imwrite(str(made), cv2.resize(cv2.imread(str(photograph)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))
    return made


def main() -> None:
    """Make or take the results, write the report, and print seconds and megabytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--entries", type=int, default=30)
    parser.add_argument("--images", type=int, default=450)
    parser.add_argument(
        "--results", type=Path, help="Where the entries and their scores are kept; taken if they are there."
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = given.results or Path(scratch) / "made"
        tables = place / "results"
        if not tables.is_dir():
            tables = make_results(given.photographs, place, given.entries, given.images)
        begun, own, took = cpu_seconds_of(family(os.getpid())), time.process_time(), time.perf_counter()
        page = report(tables, Path(scratch) / "report", full="none")
        took = time.perf_counter() - took
        # The processes that decode still wait for more.
        spent, own = cpu_seconds_of(family(os.getpid())) - begun, time.process_time() - own
        files = [path for path in page.parent.rglob("*") if path.is_file()]
        megabytes = sum(path.stat().st_size for path in files) / 1e6
    sys.stdout.write(
        f"{len(files)} files, {megabytes:.1f} MB without full pictures: {took:.1f} s on {usable_cores()} cores, {spent:.1f} s "
        f"of processor time, {own:.1f} s of it this process's\n"
    )


if __name__ == "__main__":
    main()
