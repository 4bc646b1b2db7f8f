"""What the weights that ship do to pictures that they have not been trained on: figures, cards, contact sheets.

    python benchmarks/shipped_weights.py DATA [--team NAME] [--weights FILE] [--cards] [--sheets OUT [--before EARLIER]]

DATA holds `cbsd68/*.png` and a raw frame by night (see FRAME). On the tracks of pictures: PSNR of clean ones to themselves,
and of those with noise of sigma 25 to the clean ones. On the raw track, against the linear rendering (Copy), in levels of 255:
the mean colour of nine patches; how much more the four places in cells of 2 x 2 pixels differ; the lines along the border, by
every second pixel, beside lines inside. LIMITS is what they are held to by `tests/teams/test_shipped_weights.py`.

`--cards` writes the figures into the cards beside the weights. `--sheets OUT` also writes pictures into OUT, a folder for each
method, and contact sheets of them; `--before` puts those of an earlier call in front, to see what changed.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tomli_w
import torch
from torch import Tensor

from ntire.files import write_atomically
from ntire.method import Method, catalogue
from ntire.method.weights_files import locate
from ntire.picture.contact_sheet import Column, SheetPart, contact_sheet
from ntire.picture.degradations import gaussian_noise
from ntire.picture.image import as_image, as_pixels, encode_png, psnr_of, read_pixels
from ntire.picture.raw import RawFrame, read_raw
from ntire.runner.prepare import Options, prepare
from ntire.teams.raw.copy import Copy

FRAME = "raw/night_lantern_rggb_512x512x4_12bit.npy"
SIGMA = 25.0
SHOWN = ("0005", "0028", "0050")
"""Pictures on the sheets."""
SIDE = 320
"""Of the patches of the frame on the sheets."""
LIMITS: Mapping[str, tuple[float, float]] = {
    "clean_db": (38.0, np.inf),
    "noisy_db": (28.5, np.inf),
    "colour_levels": (0.0, 1.5),
    "phase_ratio": (0.0, 1.3),
    "border_excess_levels": (-np.inf, 2.0),
}


def missed(figures: Mapping[str, float]) -> list[str]:
    """Figures outside of their limits."""
    return [
        f"{name} {value:.2f}, not within {LIMITS[name]}"
        for name, value in figures.items()
        if not LIMITS[name][0] <= value <= LIMITS[name][1]
    ]


def shipped() -> list[type[Method]]:
    """Methods whose weights ship."""
    return [
        method
        for method in catalogue.methods()
        if any(locate(one, catalogue.folder_of(method))[1] == "shipped" for one in method.weights)
    ]


def as_saved(picture: Tensor) -> Tensor:
    """As it is read back from a file of 8 bits."""
    return as_image(as_pixels(picture))


def pictures(folder: Path, side: int | None = None, every: int = 1) -> dict[str, Tensor]:
    """Every so many pictures of a folder by name, whole or their middle of at most `side`."""
    found = {}
    for path in sorted(folder.glob("*.png"))[::every]:
        picture = as_image(read_pixels(path))
        if side is not None:
            top, left = ((size - side) // 2 for size in picture.shape[-2:])
            picture = picture[:, top : top + side, left : left + side].contiguous()
        found[path.stem] = picture
    return found


def noisy(picture: Tensor, name: str) -> Tensor:
    """With white noise that follows from the name, clipped and cut off to 8 bits, as denoising tables have it."""
    rng = torch.Generator().manual_seed(int(name))
    return (gaussian_noise(picture, SIGMA, rng).clamp(0, 1) * 255).floor() / 255


def on_pictures(method: Method, shown: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean PSNR in dB of clean pictures to themselves, and of noisy ones to the clean ones."""
    clean = [_psnr(as_saved(method.enhance(gt)), gt) for gt in shown.values()]
    denoised = [_psnr(as_saved(method.enhance(noisy(gt, name))), gt) for name, gt in shown.items()]
    return {"clean_db": float(np.mean(clean)), "noisy_db": float(np.mean(denoised))}


def on_frame(method: Method, frame: RawFrame) -> dict[str, float]:
    """How far a frame's picture is from its linear rendering, in levels of 255.

    `colour_levels`: the farthest channel of the mean colour of nine patches. `phase_ratio`: the spread of the four places in
    cells of 2 x 2 pixels, root mean square over patches and channels, to the rendering's. `border_excess_levels`: the farthest
    mean of every second pixel of the two outermost lines, less that of lines inside.
    """
    restored, linear = (as_saved(one.enhance(frame)).double() * 255 for one in (method, Copy()))
    both = [(restored[(..., *at)], linear[(..., *at)]) for at in patches(*linear.shape[1:])]
    colour = max(float((found.mean((1, 2)) - wanted.mean((1, 2))).abs().max()) for found, wanted in both)
    spread = [
        torch.stack([_spread(patch) for patch in each]).square().mean().sqrt() for each in zip(*both, strict=True)
    ]
    border, inside = (
        max(_farthest_line(restored - linear, depth) for depth in depths) for depths in ((0, 1), range(24, 32))
    )
    return {
        "colour_levels": colour,
        "phase_ratio": float(spread[0] / spread[1]),
        "border_excess_levels": border - inside,
    }


def patches(height: int, width: int, side: int = 128) -> Iterator[tuple[slice, slice]]:
    """Nine patches, in the middles of thirds, on the grid of the mosaic."""
    side = min(side, height // 3, width // 3) // 2 * 2
    for row in range(3):
        for column in range(3):
            top, left = (
                ((2 * at + 1) * size // 6 - side // 2) // 2 * 2 for at, size in ((row, height), (column, width))
            )
            yield slice(top, top + side), slice(left, left + side)


def _psnr(one: Tensor, other: Tensor) -> float:
    return psnr_of(float((one.double() - other.double()).square().mean()))


def _spread(patch: Tensor) -> Tensor:
    places = torch.stack([patch[:, y::2, x::2].mean((1, 2)) for y in (0, 1) for x in (0, 1)])
    return places.amax(0) - places.amin(0)


def _farthest_line(off: Tensor, depth: int) -> float:
    lines = (off[:, depth], off[:, -1 - depth], off[:, :, depth], off[:, :, -1 - depth])
    return max(float(line[:, start::2].mean(1).abs().max()) for line in lines for start in (0, 1))


def measured(method: Method, data: Path, every: int = 1) -> dict[str, float]:
    """All figures of a method on all pictures of its track."""
    if method.track == "raw":
        return on_frame(method, read_raw(data / FRAME))
    return on_pictures(method, pictures(data / "cbsd68", every=every))


def name_of(method: type[Method]) -> str:
    """For folders and columns."""
    return "-".join(part for part in (method.team, method.track, method.variant) if part)


# What is written


def write_card(method: type[Method], figures: Mapping[str, float], every: int) -> None:
    """Figures into the card, in place of those that it had; `before`, of the weights that shipped earlier, stays."""
    path = (catalogue.folder_of(method) / "weights" / method.weights[0].file).with_suffix(".toml")
    card = tomllib.loads(path.read_text())
    few = f", every {every}th picture" if every > 1 else ""
    on = FRAME if method.track == "raw" else f"CBSD68, clean and with noise of sigma {SIGMA:g}{few}"
    before = card.get("measured", {}).get("before")
    card["measured"] = {
        "on": on,
        **({"before": before} if before else {}),
        **{name: round(value, 2) for name, value in figures.items()},
    }
    write_atomically(path, tomli_w.dumps(card).encode())


def write_pictures(method: Method, data: Path, out: Path) -> None:
    """What the sheets show of a method: three clean and three noisy pictures, or nine patches of the frame."""
    shown: dict[str, Tensor] = {}
    if method.track == "raw":
        restored = method.enhance(read_raw(data / FRAME))
        for number, at in enumerate(patches(*restored.shape[1:], side=SIDE)):
            shown[f"night-{number}"] = restored[(..., *at)]
        shown["night-corner"] = restored[:, :SIDE, :SIDE]
    else:
        every = pictures(data / "cbsd68")
        for name in SHOWN:
            shown[f"{name}-clean"] = method.enhance(every[name])
            shown[f"{name}-noisy"] = method.enhance(noisy(every[name], name))
    out.mkdir(parents=True, exist_ok=True)
    for name, picture in shown.items():
        write_atomically(out / f"{name}.png", encode_png(as_pixels(picture)))


def write_sheets(out: Path, before: Path | None, methods: Sequence[type[Method]], data: Path) -> None:
    """A sheet of the frame and one of pictures: the input, then every method, as it was and as it is."""
    for raw, track in ((True, "raw"), (False, "srgb")):
        write_pictures(catalogue.find("Copy", track)(), data, out / "input" / track)
        columns = [_column("input", out / "input" / track)]
        for method in methods:
            if (method.track == "raw") == raw:
                earlier = [_column(f"{name_of(method)}, before", before / name_of(method))] if before else []
                columns += [*earlier, _column(name_of(method), out / name_of(method))]
        contact_sheet(out / ("night.png" if raw else "pictures.png"), [SheetPart(columns, list(columns[0].pictures))])


def _column(title: str, folder: Path) -> Column:
    return Column(title, {path.stem: path for path in sorted(folder.glob("*.png"))})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--team", help="only this team")
    parser.add_argument("--track", help="only this track")
    parser.add_argument("--weights", type=Path, help="instead of those that ship, for the one method that is left")
    parser.add_argument("--every", type=int, default=1, help="only every so many pictures, to be quick")
    parser.add_argument("--cards", action="store_true", help="write the figures into the cards")
    parser.add_argument("--sheets", type=Path, help="write pictures and contact sheets into this folder")
    parser.add_argument("--before", type=Path, help="such a folder of earlier weights")
    options = parser.parse_args()
    chosen = [
        method for method in shipped() if options.team in (None, method.team) and options.track in (None, method.track)
    ]
    if options.weights and len(chosen) != 1:
        parser.error(f"--weights is for one method, found {', '.join(map(name_of, chosen)) or 'none'}")
    for kind in chosen:
        method = prepare(kind, Options(weights=options.weights)).method
        figures = measured(method, options.data, options.every)
        sys.stdout.write(f"{name_of(kind)}: {', '.join(f'{name} {value:.2f}' for name, value in figures.items())}\n")
        if options.cards:
            write_card(kind, figures, options.every)
        if options.sheets:
            write_pictures(method, options.data, options.sheets / name_of(kind))
    if options.sheets:
        write_sheets(options.sheets, options.before, chosen, options.data)


if __name__ == "__main__":
    main()
