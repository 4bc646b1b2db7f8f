"""Do the metrics with their weights give the values that are published? Five public pictures, pyiqa's own table.

Weights are what no pinned picture of ours can prove: a metric whose values on these pictures are the published ones has the
right weights, and a library that has not drifted. What was proven is kept, so that scores of other metrics can say that they
are not.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ntire import UserError
from ntire.files import sha256_of, writable_folder, write_atomically
from ntire.method.weights_files import digest_of, locate, verify, ways_to_get
from ntire.picture.image import Pixels, read_pixels
from ntire.scoring.cache import default_path
from ntire.scoring.instruments import View
from ntire.scoring.metrics import METRICS, Metric
from ntire.scoring.pixels import MetricError

SOURCE = "github.com/chaofengc/IQA-PyTorch, ResultsCalibra/calibration_summary.csv"
HOW_TO_GET = (
    "Get them with `git clone --depth 1 https://github.com/chaofengc/IQA-PyTorch` and name its folder: "
    "`ntire doctor --calibrate IQA-PyTorch/ResultsCalibra`."
)
PICTURES = {
    "I03.bmp": (
        "bb817e7fef614dcc12b3a99af33ce3d201bc4d56c4827254c0bcc4fa6ea11151",
        "28441215ca5b6358e6267717250a02eeec4fa5ef73ae454870b8426320f980a8",
    ),
    "I04.bmp": (
        "f3d685983aacd76b2c131579ea60cee345205a1169a4bd2ff5f3039ecf81729e",
        "c8500941a30397bc9e613a297e1286bdb955f49926148f58e7963d6e82b03c9f",
    ),
    "I06.bmp": (
        "726e043e99d8e07235c2535107d4bb6fc85bad0cb3cc7d6ba3ecf3364ac97539",
        "445c2c0fcb47898e9cd8e6de640f2545621d27cbb248c69ef2c84d8204723061",
    ),
    "I08.bmp": (
        "8ad39042d7e17d6c96ecfd8c4b9f0e98c803b303a92d368ef57bc9c3c40f5330",
        "b5d6738ece811f45f43c5bce425ad5d18d5c78466989001fe1129fcdd08efdab",
    ),
    "I19.bmp": (
        "e0c6000652d270d1c39b7094761d01e14695fc5aa7cb76b945be6391327ee886",
        "b8a2ede827d8db21c45f9ca1fb1c043bcec571b5a7243b4ea1aab3fb4feb7e0b",
    ),
}
"""Sha256 of the distorted picture and of its reference; samples of TID2013."""
State = Literal["proven", "drifted", "missing", "no values"]


@dataclass(frozen=True)
class Published:
    """What a metric gives on PICTURES, in their order, by the table of SOURCE."""

    values: tuple[float, ...]
    tolerance: float
    """Four printed decimals, and what precision and releases have moved since."""


PUBLISHED: Mapping[str, Published] = {
    "psnr": Published((21.1136, 20.9872, 27.0139, 23.3002, 21.6186), 2e-4),
    "ssim": Published((0.6997, 0.9978, 0.9989, 0.9671, 0.6522), 2e-4),
    # Where luma lies exactly between two levels, float32 rounds it either way: by up to 0.02 for I03 among processors.
    "niqe": Published((15.6538, 3.6549, 3.2342, 3.1921, 9.0722), 2.5e-2),
    "lpips": Published((0.7237, 0.2572, 0.0508, 0.0521, 0.4253), 3e-4),
    "dists": Published((0.4742, 0.1424, 0.0682, 0.0287, 0.3123), 3e-4),
    "musiq": Published((12.4773, 75.7764, 73.7459, 75.4604, 38.0248), 2e-2),
}


@dataclass(frozen=True)
class Proof:
    """What was found of a metric."""

    metric: str
    state: State
    found: str


def calibrate(folder: Path, device: str, names: Iterable[str] = METRICS) -> list[Proof]:
    """Hold metrics against their published values and keep what is proven.

    `folder` has the pictures, distorted ones in `dist` or `dist_dir` and references in `ref` or `ref_dir`. Raises UserError
    that lists all pictures that are not there or not the published ones.
    """
    pairs = _pictures(folder)
    proofs = [_proof(METRICS[name], pairs, device) for name in names]
    path = _kept()
    known = _known()
    for proof in proofs:
        identity = METRICS[proof.metric].identity(device)
        known.discard(identity)
        if proof.state == "proven":
            known.add(identity)
    writable_folder(path.parent)
    write_atomically(path, json.dumps(sorted(known), indent=1) + "\n")
    return proofs


def unproven(identities: Mapping[str, str]) -> tuple[str, ...]:
    """Metrics with weights whose values nobody has held against the published ones here, as they are now."""
    wanted = [name for name in identities if METRICS[name].weights]
    known = _known() if wanted else set()
    return tuple(name for name in wanted if identities[name] not in known)


def _kept() -> Path:
    return default_path().with_name("calibrated.json")


def _known() -> set[str]:
    try:
        found = json.loads(_kept().read_text())
    except (OSError, ValueError):
        return set()
    return {one for one in found if isinstance(one, str)} if isinstance(found, list) else set()


def _pictures(folder: Path) -> list[tuple[Pixels, Pixels]]:
    problems = []
    pairs = []
    for name, digests in PICTURES.items():
        pair = []
        for kind, digest in zip(("dist", "ref"), digests, strict=True):
            path = next((one for one in (folder / f"{kind}_dir" / name, folder / kind / name) if one.is_file()), None)
            if path is None:
                problems.append(f"{kind}/{name}: not there")
            elif sha256_of(path) != digest:
                problems.append(f"{kind}/{name}: another picture, its sha256 is not {digest[:16]}...")
            else:
                pair.append(path)
        pairs.append(pair)
    if problems:
        raise UserError(
            "\n  ".join([f"{folder}: expected the calibration pictures of pyiqa:", *problems]) + f"\n{HOW_TO_GET}"
        )
    return [(read_pixels(dist), read_pixels(ref)) for dist, ref in pairs]


def _proof(metric: Metric, pairs: Sequence[tuple[Pixels, Pixels]], device: str) -> Proof:
    missing = [one for one in metric.weights if locate(one, None)[1] == "missing"]
    if missing:
        ways = "; ".join(way for one in missing for way in ways_to_get(one))
        files = ", ".join(one.file for one in missing)
        return Proof(metric.name, "missing", f"{files} not here: `ntire weights fetch {metric.name}` ({ways})")
    published = PUBLISHED.get(metric.name)
    if published is None:
        kept = "its files' hashes are checked where they are known" if metric.weights else "it has no weights"
        return Proof(metric.name, "no values", f"no values of these pictures are published; {kept}")
    try:
        for one in metric.weights:
            verify(one, locate(one, None)[0])
        instrument = metric.load(device, metric.paths())
        observed = [
            instrument.observe([View(dist, None if metric.against == "nothing" else ref)])[0] for dist, ref in pairs
        ]
    except (UserError, MetricError, RuntimeError, ImportError) as error:
        return Proof(metric.name, "drifted", f"has no values here: {error}")
    values = [float(vector[0]) for vector in observed]
    apart = [
        f"{name} {found:.4f} for {wanted:.4f}"
        for name, found, wanted in zip(PICTURES, values, published.values, strict=True)
        if not abs(found - wanted) <= published.tolerance
    ]
    if apart:
        return Proof(metric.name, "drifted", f"{', '.join(apart)} (within {published.tolerance:g}); {_made_by(metric)}")
    return Proof(metric.name, "proven", f"5 of 5 published values within {published.tolerance:g}; {_made_by(metric)}")


def _made_by(metric: Metric) -> str:
    """Library versions and weights files that values come from."""
    files = [f"{path} (sha256 {digest_of(path)[:12]}...)" for path in metric.paths().values() if path.is_file()]
    return ", ".join([*metric.versions(), *files])
