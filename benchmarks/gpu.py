"""All that a machine with an NVIDIA GPU can say of ntire, in a few minutes: `make gpu`, or

    python benchmarks/gpu.py --minutes 10 [--train DATA]

from a checkout, in a Python that has torch and what ntire stands on. Steps run in processes of their own, each with a limit;
what they say is written as it comes to benchmarks/gpu/<device>.json and .md. Steps for which the minutes do not suffice are
left out and named; one that hangs is ended with all that it started. With --train, what is left of the minutes goes on
training the light networks; the next call resumes.
`--device cpu` tries every step on small pictures, without saying anything of speed.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TRAINED = (("TongJi-IPOE", "srgb"), ("TongJi-IPOE", "raw"), ("NJUST-KMG", "srgb"))
"""Light networks whose recipes need no other networks' weights."""
LEAST_TRAINING = 60.0
"""Seconds, for each of them."""
GRACE = 15.0
"""Seconds that a process has to end by itself when it is told to."""


@dataclass(frozen=True)
class Step:
    """One thing to find out."""

    name: str
    seconds: int
    """It is not begun with less left, and ended after twice as long."""
    words: Callable[[argparse.Namespace, Path], list[str]]
    """The command behind `python`, which writes JSON into the file."""


def _own(name: str, *more: str) -> Callable[[argparse.Namespace, Path], list[str]]:
    return lambda options, out: [
        str(HERE / "gpu.py"),
        "--device",
        options.device,
        "--step",
        name,
        "--json",
        str(out),
        *more,
    ]


def _tests(options: argparse.Namespace, out: Path) -> list[str]:
    files = [path for path in sorted((HERE.parent / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    return ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "--tb=short", *map(str, files)]


def _forwards(*more: str) -> Callable[[argparse.Namespace, Path], list[str]]:
    return lambda options, out: [
        str(HERE / "gpu_forward.py"), "--device", options.device, "--seconds", "1", "--json", str(out), *more,
    ]  # fmt: skip


def _scorer(options: argparse.Namespace, out: Path) -> list[str]:
    few = ["--images", "2", "--entries", "1", "--metrics", "niqe"] if options.device == "cpu" else []
    return ["-m", "ntire", "bench", "--scorer", "--device", options.device, "--rounds", "1", "--json", *few]


STEPS = (
    Step("networks, bf16 channels-last", 45, _forwards("--precision", "bf16", "--channels-last")),
    Step("PNG to PNG", 30, _own("throughput")),
    Step("PNG to PNG, bf16 channels-last", 30, _own("throughput", "--fast")),
    Step("graphs", 30, _own("graphs")),
    Step("max-memory", 20, _own("max-memory")),
    Step("networks, fp32", 60, _forwards()),
    Step("scorer", 60, _scorer),
    Step("compile", 90, _own("compile")),
    Step("tests", 120, _tests),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="in all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=HERE / "gpu", help="folder of the results")
    parser.add_argument("--only", nargs="*", choices=[step.name for step in STEPS], help="these steps alone")
    parser.add_argument(
        "--train", type=Path, help="folder of clean pictures to train on with the minutes that are left"
    )
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--fast", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        options.json.write_text(json.dumps(OWN_STEPS[options.step](options)))
    else:
        _all(options)


def _all(options: argparse.Namespace) -> None:
    """Run what the minutes suffice for, most telling first."""
    ends = time.monotonic() + 60 * options.minutes
    name = _name_of(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    found: dict[str, Any] = {"device": name, "steps": {}}

    def note(step: str, said: dict[str, Any]) -> None:
        found["steps"][step] = said
        results.write_text(json.dumps(found, indent=2) + "\n")
        results.with_suffix(".md").write_text(_table(found))
        sys.stderr.write(f"{step}: {said['status']}\n")

    for step in STEPS:
        if options.only is None or step.name in options.only:
            left = ends - time.monotonic()
            note(
                step.name,
                _run(step, options, min(2 * step.seconds, left)) if left >= step.seconds else {"status": "left out"},
            )
    for number, (team, track) in enumerate(TRAINED if options.train is not None else ()):
        left = (ends - time.monotonic()) / (len(TRAINED) - number)
        note(f"training {team} {track}", _train(team, track, options, left))
    sys.stdout.write(_table(found))


def _name_of(device: str) -> str:
    import torch

    if device == "cpu":
        return "a trial on the CPU"
    if not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA GPU, and there is none; --device cpu tries the steps without one")
    return torch.cuda.get_device_name(device)


def _run(step: Step, options: argparse.Namespace, limit: float) -> dict[str, Any]:
    """What became of a step: its JSON, or the end of what it said."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        said, printed = _ended(step.words(options, out), limit)
        # What it wrote before it was ended counts, too.
        for text in (out.read_text() if out.is_file() else "", printed):
            with contextlib.suppress(ValueError):
                return said | {"found": json.loads(text)}
        return said


def _ended(words: list[str], limit: float) -> tuple[dict[str, Any], str]:
    """A child of this Python that has ended, by itself or not, and what it printed; nothing that it started goes on."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(
            [sys.executable, *words], stdout=printed, stderr=log, cwd=HERE.parent, start_new_session=True
        )
        status = ""
        try:
            child.wait(limit)
        except subprocess.TimeoutExpired:
            status = f"ended after {limit:.0f} s"
            os.killpg(child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GRACE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if not status:
            status = "done" if child.returncode == 0 else f"failed with exit code {child.returncode}"
        text, errors = (file.seek(0) or file.read() for file in (printed, log))
    said = {"status": status, "seconds": round(time.monotonic() - began, 1), "said": (text + errors)[-3000:]}
    return said, text


# Steps of its own


def _throughput(options: argparse.Namespace, **chosen: Any) -> dict[str, Any]:
    """PNGs to PNGs of whole frames: pictures a second, and what each stage takes of it."""
    if options.fast:
        chosen |= {"precision": "bf16", "channels_last": True}
    return _restored(options, 32 if options.device != "cpu" else 2, **chosen)


def _graphs(options: argparse.Namespace) -> dict[str, Any]:
    if options.device == "cpu":
        return {"skipped": "a CPU has no graphs"}
    return _restored(options, 12, tile=512, cuda_graphs=True)


def _compile(options: argparse.Namespace) -> dict[str, Any]:
    if options.device == "cpu":
        return {"skipped": "a compiler for the CPU may be missing, and takes a minute"}
    return _restored(options, 12, tile=512, precision="bf16", channels_last=True, compiled=True)


def _max_memory(options: argparse.Namespace) -> dict[str, Any]:
    """Parts in turn under the least limit that any part allows, against all at once; the bytes must be the same."""
    from ntire.method import catalogue

    method = catalogue.find("MiAlgo", "srgb")()
    sizes = [sum(value.nbytes for value in part.parameters()) for part in method.children()]
    if options.device == "cpu":
        return {"skipped": f"limits are for GPUs; its {len(sizes)} parts have {sum(sizes)} bytes"}
    limit = 1.2 * max(sizes) / 1e9
    return {"limit_gb": limit} | _restored(options, 4, max_memory_gb=limit)


def _restored(options: argparse.Namespace, count: int, **chosen: Any) -> dict[str, Any]:
    """A run over pictures made on the spot; bytes are compared with those of a plain run, in levels."""
    import numpy as np

    from ntire.method import catalogue
    from ntire.picture.image import encode_png, read_pixels
    from ntire.runner.prepare import Options, prepare
    from ntire.runner.runner import Input, run

    height, width = (3040, 4032) if options.device != "cpu" else (96, 120)
    kind = catalogue.find("MiAlgo", "srgb")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        rows, columns = np.mgrid[:height, :width]
        plain = np.stack([(rows // 3 + columns * k // 5) % 256 for k in (1, 2, 3)], axis=-1)
        noise = rng.integers(-9, 10, (height, width, 3))
        inputs = []
        for number in range(count):
            picture = (plain + np.roll(noise, 17 * number, axis=0)).clip(0, 255).astype(np.uint8)
            path = folder / "in" / f"{number:03}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode_png(picture))
            inputs.append(Input(path, path.stem))
        reference = run(prepare(kind, Options(options.device)), inputs[:1], folder / "plain", "demo-srgb")
        prepared = prepare(kind, Options(options.device, **chosen))
        done = run(prepared, inputs, folder / "out", "demo-srgb")
        first = [read_pixels(folder / side / "images" / "000.png").astype(int) for side in ("plain", "out")]
        off = int(np.abs(first[0] - first[1]).max())
    slow = [result.seconds for result in done.results[1:] if result.seconds is not None]
    return {
        "pictures": count,
        "height": height,
        "width": width,
        "failed": [result.problem for result in (*reference.failed, *done.failed)],
        "pictures_per_s": count / done.seconds,
        "device_ms": 1e3 * sorted(slow)[len(slow) // 2] if slow else None,
        "peak_memory_mb": max((result.peak_memory_mb or 0.0) for result in done.results),
        "stages": {stage.name: stage.share for stage in done.stages},
        "effect": str(done.effect) if done.effect else None,
        "levels_off_plain": off,
        "notes": sorted({note for result in done.results for note in result.notes}),
    }


OWN_STEPS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "throughput": _throughput,
    "graphs": _graphs,
    "compile": _compile,
    "max-memory": _max_memory,
}


def _train(team: str, track: str, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Go on training a network for so long; it resumes from its last checkpoint."""
    if seconds < LEAST_TRAINING and options.device != "cpu":
        return {"status": "left out"}
    said, _ = _ended(_training(team, track, options), seconds)
    return said


def _training(team: str, track: str, options: argparse.Namespace) -> list[str]:
    """The command behind `python`; on a CPU a few steps, for no weights that are of use."""
    words = ["-m", "ntire", "train", "--team", team, "--track", track, "--data", str(options.train.resolve())]
    words += ["--device", options.device, "--out", str((options.out / "trained" / f"{track}-{team}").resolve())]
    few = ["--iterations", "4", "--batch", "1", "--patch", "32", "--held-out", "1", "--save-every", "2"]
    return words + (few if options.device == "cpu" else ["--save-every", "200"])


def _table(found: dict[str, Any]) -> str:
    """What was found, as a reader of the repository wants it."""
    lines = [f"# {found['device']}", "", "| step | | s | found |", "|---|---|---:|---|"]
    for name, said in found["steps"].items():
        lines.append(f"| {name} | {said['status']} | {said.get('seconds', '')} | {_in_words(said)} |")
    return "\n".join(lines) + "\n"


def _in_words(said: dict[str, Any]) -> str:
    found = said.get("found")
    if not isinstance(found, dict):
        return " ".join(said.get("said", "").strip().splitlines()[-1:])
    if "skipped" in found:
        return str(found["skipped"])
    if "rows" in found:
        return "; ".join(
            f"{row['team']} {row['track']} {row['median_ms']:.2f} ms "
            f"(floor {row['floor_ms']:.2f}, report {row['reported_ms']:g})"
            for row in found["rows"]
        )
    if "parts" in found:
        return "; ".join(f"{part['name']} {part['ratio']:.2f} x" for part in found["parts"])
    problems = f"; {len(found['failed'])} failed: {found['failed'][0]}" if found["failed"] else ""
    return (
        f"{found['pictures_per_s']:.1f} pictures/s, {found['device_ms'] or 0:.1f} ms on the device, "
        f"{found['peak_memory_mb']:.0f} MB, {found['levels_off_plain']} levels off the plain run{problems}"
    )


if __name__ == "__main__":
    main()
