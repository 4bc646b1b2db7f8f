"""ntire beside what people use today, on one network and the same pictures in one run.

    python benchmarks/peers.py --height 3072 --width 4096 --rounds 3

Each contender takes PNGs to PNGs in a fresh process, in alternating order; see benchmarks/README.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from ntire import UserError
from ntire.method import Method, catalogue
from ntire.method.state_dict import fill_from
from ntire.method.weights_files import locate, verify
from ntire.picture.image import encode_png, read_pixels
from ntire.runner.prepare import Options, Prepared, prepare
from ntire.runner.runner import Input, run

Network = Callable[[Tensor], Tensor]
"""(1, 3, H, W) to (1, 3, H, W), both float in [0, 1], on the device."""


def main() -> None:
    options = _options()
    if options.contender:
        sys.stdout.write(json.dumps(_contend(options)) + "\n")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make_pictures(folder / "lq", options.height, options.width, options.count)
        names = [one for one in CONTENDERS if one not in options.without]
        found: dict[str, list[dict[str, Any]]] = {one: [] for one in names}
        for number in range(options.rounds):
            # In the first round the whole images come first: the others are compared with them.
            for one in names if number % 2 == 0 else names[::-1]:
                _say(f"round {number + 1}: {one}")
                found[one].append(_in_a_process(one, folder, options))
        _tell(found, folder, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--team", default="MiAlgo")
    parser.add_argument("--variant")
    parser.add_argument("--height", type=int, default=3072)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--count", type=int, default=1, help="pictures")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of each contender")
    parser.add_argument("--tile", type=int, default=512, help="side of the peers' tiles; ntire chooses its own")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--without", nargs="*", default=[], choices=list(CONTENDERS))
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--contender", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# The contenders


def _serial(restore: Callable[[Network, Tensor, int], Tensor]) -> Callable[..., None]:
    """The shape of most programs: decode, to float on the host, restore, to integers on the host, encode; one by one."""

    @torch.no_grad()
    def go(prepared: Prepared, files: Sequence[Path], out: Path, options: argparse.Namespace) -> None:
        for file in files:
            decoded = cv2.imread(str(file), cv2.IMREAD_COLOR)
            lq = torch.from_numpy(decoded[..., ::-1].astype(np.float32).transpose(2, 0, 1) / 255)[None]
            restored = restore(_on_grid(prepared.method), lq.to(prepared.method.device), options.tile)
            values = restored[0].float().cpu().clamp(0, 1).numpy().transpose(1, 2, 0)
            cv2.imwrite(str(out / file.name), (values * 255).round().astype(np.uint8)[..., ::-1])

    return go


def _whole(network: Network, lq: Tensor, tile: int) -> Tensor:
    return network(lq)


def _padded_tiles(network: Network, lq: Tensor, tile: int, pad: int = 10) -> Tensor:
    """As Real-ESRGAN goes about it: a disjoint grid, each tile with 10 pixels around it, cropped again."""
    height, width = lq.shape[-2:]
    restored = torch.zeros_like(lq)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            first_row, first_column = max(top - pad, 0), max(left - pad, 0)
            piece = network(lq[..., first_row : min(bottom + pad, height), first_column : min(right + pad, width)])
            rows = slice(top - first_row, bottom - first_row)
            columns = slice(left - first_column, right - first_column)
            restored[..., top:bottom, left:right] = piece[..., rows, columns]
    return restored


def _monai(mode: str) -> Callable[[Network, Tensor, int], Tensor]:
    def restore(network: Network, lq: Tensor, tile: int) -> Tensor:
        from monai.inferers import SlidingWindowInferer

        inferer = SlidingWindowInferer(roi_size=(tile, tile), sw_batch_size=1, overlap=0.25, mode=mode)
        restored: Tensor = inferer(lq, network)
        return restored

    return restore


def _ntire(prepared: Prepared, files: Sequence[Path], out: Path, options: argparse.Namespace) -> None:
    prepared = replace(prepared, options=replace(prepared.options, **NTIRE[options.contender]))
    done = run(prepared, [Input(file, file.stem) for file in files], out.parent, "demo-srgb")
    if done.failed:
        raise SystemExit(f"ntire: {done.failed[0].problem}")
    for file in files:
        (out.parent / "images" / file.name).rename(out / file.name)


NTIRE: dict[str, dict[str, Any]] = {
    "ntire": {},
    "ntire, OpenVINO": {"backend": "openvino"},
    "ntire, ONNX Runtime": {"backend": "onnx"},
}
"""Options of `ntire run` by contender."""
PREPARED = ", prepared"
"""Of contenders that get the network as ntire prepares it: layout, folded steps, memory that is kept."""
CONTENDERS: dict[str, Callable[..., None]] = {
    "whole image": _serial(_whole),
    "padded tiles": _serial(_padded_tiles),
    "MONAI, constant": _serial(_monai("constant")),
    "MONAI, gaussian": _serial(_monai("gaussian")),
    f"whole image{PREPARED}": _serial(_whole),
    f"padded tiles{PREPARED}": _serial(_padded_tiles),
    **dict.fromkeys(NTIRE, _ntire),
}


def _on_grid(method: Method) -> Network:
    """The network, for sides that its strides do not divide: padded by reflection and cropped, as all of them do it."""

    def network(lq: Tensor) -> Tensor:
        height, width = lq.shape[-2:]
        padded = F.pad(lq, (0, -width % method.stride, 0, -height % method.stride), mode="reflect")
        restored: Tensor = method(padded)[..., :height, :width]
        return restored

    return network


# One process of one contender


def _contend(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    prepared, weights = _prepared(options)
    go = CONTENDERS[options.contender]
    out = options.folder / "out" / options.contender / "restored"
    for folder in ("warm", "restored"):
        (out.parent / folder).mkdir(parents=True, exist_ok=True)
    go(prepared, [next(_pictures(options.folder / "warm-up"))], out.parent / "warm", options)
    _forget_peak()
    before = _resident_mb("VmRSS")
    if options.device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    cpu, wall = time.process_time(), time.perf_counter()
    go(prepared, list(_pictures(options.folder / "lq")), out, options)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    on_gpu = torch.cuda.max_memory_allocated() / 2**20 if options.device.startswith("cuda") else None
    return {
        "wall_s": wall / options.count,
        "cpu_s": cpu / options.count,
        "memory_mb": _resident_mb("VmHWM") - before,
        "device_mb": on_gpu,
        "weights": weights,
    }


def _prepared(options: argparse.Namespace) -> tuple[Prepared, str]:
    """The network with its weights: as ntire prepares it for itself, and otherwise as its module is written."""
    kind, torch_options = catalogue.find(options.team, "srgb", options.variant), Options(options.device)
    ours = options.contender in NTIRE or options.contender.endswith(PREPARED)
    try:
        if ours:
            return prepare(kind, torch_options), "its own"
        method, weights = kind().eval().requires_grad_(False), "its own"
        for one in method.weights:
            path, _ = locate(one, catalogue.folder_of(kind))
            verify(one, path)
            fill_from(method.get_submodule(one.into), one, path)
    except (UserError, OSError):
        torch.manual_seed(0)
        method, weights = kind().eval().requires_grad_(False), "random"
        if ours:
            method.deploy()
        method.weights = ()  # type: ignore[misc]  # of this copy: none of its files is here
    return Prepared(method.to(options.device), torch_options, None, ()), weights


def _in_a_process(contender: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    words = [sys.executable, __file__, "--contender", contender, "--folder", str(folder)]
    for name in ("team", "variant", "height", "width", "count", "tile", "device", "threads"):
        value = getattr(options, name)
        words += [f"--{name}", str(value)] if value is not None else []
    threads = str(options.threads)
    ran = subprocess.run(
        words,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
    )
    if ran.returncode:
        if "No module named 'monai'" in ran.stderr:
            raise SystemExit("MONAI is not installed: pip install monai, or leave it out with --without")
        raise SystemExit(f"{contender} failed:\n{ran.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found | _off(folder, contender)


def _off(folder: Path, contender: str) -> dict[str, Any]:
    """How far the files are off those of the whole image through the same network, in levels, where that ran before."""
    most, changed, values = 0, 0, 0
    ours = contender in NTIRE or contender.endswith(PREPARED)
    for path in _pictures(folder / "out" / contender / "restored"):
        reference = folder / "out" / f"whole image{PREPARED if ours else ''}" / "restored" / path.name
        if reference.is_file():
            off = np.abs(read_pixels(path).astype(int) - read_pixels(reference).astype(int))
            most, changed, values = max(most, int(off.max())), changed + int((off > 0).sum()), values + off.size
    return {"max_levels": most if values else None, "changed": changed / values if values else None}


def _resident_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def _forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


# Pictures and the table


def _make_pictures(folder: Path, height: int, width: int, count: int) -> None:
    """A photograph, repeated by reflection, with noise of its own for each picture; and a small one to warm up on."""
    from skimage import data

    photograph = data.astronaut()
    for place, number, size in [
        *((folder, number, (height, width)) for number in range(count)),
        (folder.with_name("warm-up"), count, (min(height, 256), min(width, 256))),
    ]:
        missing = [(0, max(have - was, 0)) for have, was in zip(size, photograph.shape, strict=False)]
        picture = np.pad(photograph, (*missing, (0, 0)), mode="symmetric")[: size[0], : size[1]]
        noise = np.random.default_rng(number).normal(0, 8, picture.shape)
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{number:03d}.png"
        path.write_bytes(encode_png((picture + noise).round().clip(0, 255).astype(np.uint8)))


def _pictures(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("*.png"))


def _tell(found: dict[str, list[dict[str, Any]]], folder: Path, options: argparse.Namespace) -> None:
    memory = "device_mb" if options.device.startswith("cuda") else "memory_mb"
    columns = ["", "wall s", "CPU s", "CPU, ntire = 1", f"{memory}, peak", "off the whole image", "values changed"]
    table = Table(*columns, box=None, pad_edge=False)
    for name, rounds in found.items():
        ours = found.get("ntire")
        ratio = median(one["cpu_s"] / our["cpu_s"] for one, our in zip(rounds, ours, strict=True)) if ours else None
        off = rounds[-1]
        table.add_row(
            name,
            f"{median(one['wall_s'] for one in rounds):.2f}",
            f"{median(one['cpu_s'] for one in rounds):.2f}",
            "" if ratio is None else f"{ratio:.2f}",
            f"{median(one[memory] for one in rounds):.0f}",
            "" if off["max_levels"] is None else f"{off['max_levels']} levels",
            "" if off["changed"] is None else f"{off['changed']:.4%}",
        )
    out = Console(width=None if sys.stdout.isatty() else 160)
    out.print(table)
    weights = next(iter(found.values()))[0]["weights"]
    out.print(
        f"{options.team} srgb, {weights} weights, {options.count} picture(s) of {options.height} x {options.width} on "
        f"{options.device}, {options.threads} thread(s), median of {options.rounds} round(s); torch {torch.__version__}",
        markup=False,
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def _say(line: str) -> None:
    Console(stderr=True).print(line, markup=False)


if __name__ == "__main__":
    main()
