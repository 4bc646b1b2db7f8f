"""The built-in sample set: raw frames and degraded pictures made from scikit-image's bundled photographs.

    <folder>/raw/lq/<name>.png + .toml    raw/gt/<name>.png
    <folder>/srgb/lq/<name>.png           srgb/gt/<name>.png

No download, no random element: every machine with the same library versions makes the same files.
"""

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray

from ntire.environment import own_cache
from ntire.files import sha256_of, write_atomically
from ntire.picture import unclipped
from ntire.picture.degradations import RawDegradation, gaussian_blur, gaussian_noise, jpeg
from ntire.picture.image import as_image, as_pixels, cut_to_multiple, encode_png, read_header, read_pixels
from ntire.picture.raw import RawFrame, correct_colours
from ntire.picture.unclipped import NoiseProtocol

PICTURES = ("astronaut", "chelsea", "coffee", "rocket")
VERSION = 1
"""Raised when the files would change, so that cached sets are made again."""
WHITE_LEVEL, BLACK_LEVEL = 1023, 64
"""Of the sample raw frames: 10 bit, as phones record."""
ISOS = (800.0, 1600.0, 3200.0, 6400.0)
"""Of the sample raw frames, in the order of PICTURES."""
SIGMAS = (10.0, 15.0, 20.0, 25.0)
"""Noise of the sample sRGB pictures in levels of 255, in the order of PICTURES."""


def sample_set(folder: Path | None = None) -> Path:
    """Make the sample set in `folder` (default: the user's cache) unless it is there; returns its root."""
    root = folder or own_cache() / f"samples-v{VERSION}"
    if (root / "complete").is_file():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: another machine may be making it at the same time, in the same folder.
    made = root.with_name(f".{root.name}.{secrets.token_hex(8)}.part")
    for number, name in enumerate(PICTURES):
        picture = photograph(name)
        _write_raw(made / "raw", name, picture, ISOS[number], number)
        _write_srgb(made / "srgb", name, picture, SIGMAS[number], number)
    (made / "complete").write_text(f"ntire sample set, version {VERSION}\n")
    if root.exists() and not (root / "complete").is_file():
        shutil.rmtree(root)
    try:
        made.replace(root)
    except OSError:
        if not (root / "complete").is_file():
            raise
        shutil.rmtree(made)  # another one was faster, with the same pictures
    return root


def add_noise(
    pictures: Mapping[str, Path], sigma: float, seed: int, protocol: NoiseProtocol = "rounded", multiple: int = 1
) -> dict[str, Path]:
    """Noisy versions of clean pictures, by name, in the cache: white Gaussian noise of `sigma` levels of 255.

    They are cut to sides of a `multiple` of pixels first, about their centre. The noise of a picture follows from its bytes
    and the seed, not from its name or place. The files are PNGs, or for `float` those of `ntire.picture.unclipped`.
    """
    digests = {name: sha256_of(path) for name, path in pictures.items()}
    facts = (sigma, seed, digests, *((protocol, multiple) if (protocol, multiple) != ("rounded", 1) else ()))
    root = own_cache() / f"noisy-{sha256_of(repr(facts).encode())[:16]}"
    made = {name: root / f"{name}{unclipped.SUFFIX if protocol == 'float' else '.png'}" for name in pictures}
    if (root / "complete").is_file():
        return made
    for name, path in pictures.items():
        rng = torch.Generator().manual_seed((int(digests[name][:15], 16) + seed) % 2**63)
        noisy = gaussian_noise(as_image(cut_to_multiple(read_pixels(path), multiple)), sigma, rng)
        _write(made[name], _handed(noisy, protocol))
    _write(root / "complete", b"")
    return made


def cut_pictures(pictures: Mapping[str, Path], multiple: int) -> dict[str, Path]:
    """Pictures by name, cut about their centre to sides of a multiple of pixels, in the cache; those that need no cut as they
    are. The files are PNGs, or of floats those of `ntire.picture.unclipped`.
    """
    made = {}
    for name, path in pictures.items():
        header = read_header(path)
        if header.height % multiple == 0 and header.width % multiple == 0:
            made[name] = path
            continue
        floating = header.floating
        root = own_cache() / f"cut-{multiple}-{sha256_of(path)[:16]}"
        made[name] = root / f"{name}{unclipped.SUFFIX if floating else '.png'}"
        if not made[name].is_file():
            cut: Any = np.ascontiguousarray(cut_to_multiple(read_pixels(path), multiple))
            _write(made[name], unclipped.encode(cut) if floating else encode_png(cut))
    return made


def _handed(noisy: torch.Tensor, protocol: NoiseProtocol) -> bytes:
    """A noisy image (3, H, W) as the file that a network gets."""
    if protocol == "float":
        return unclipped.encode(noisy.permute(1, 2, 0).numpy())
    if protocol == "truncated":
        return encode_png((noisy.clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
    return encode_png(as_pixels(noisy))


def photograph(name: str) -> NDArray[np.uint8]:
    """One of PICTURES, RGB (H, W, 3), of even sides."""
    from skimage import data

    picture: Any = getattr(data, name)()
    height, width = (size // 2 * 2 for size in picture.shape[:2])
    return np.ascontiguousarray(picture[:height, :width, :3])


def _write_raw(folder: Path, name: str, picture: NDArray[np.uint8], iso: float, seed: int) -> None:
    degradation = RawDegradation(
        iso=(iso, iso), darkening=(1.5, 1.5), blur_probability=0.0, bad_pixel_share=(1e-4, 1e-4), bits=(10,)
    )
    frame, camera = degradation.frame(as_image(picture), torch.Generator().manual_seed(seed))
    (folder / "lq").mkdir(parents=True, exist_ok=True)
    write_frame(frame, folder / "lq" / name)
    # The camera cannot see colours outside its gamut: the truth is what it recorded, rendered.
    _write(folder / "gt" / f"{name}.png", encode_png(as_pixels(correct_colours(camera, frame.ccm))))


def write_frame(frame: RawFrame, path: Path) -> None:
    """A raw frame as a 16-bit PNG of 10-bit levels, and the TOML beside it; `path` has no suffix."""
    levels = frame.mosaic[0] * (WHITE_LEVEL - BLACK_LEVEL) + BLACK_LEVEL
    facts = {
        "cfa": frame.cfa,
        "black_level": BLACK_LEVEL,
        "white_level": WHITE_LEVEL,
        "white_balance": list(frame.white_balance),
        "ccm": [list(row) for row in frame.ccm],
        **({"iso": frame.iso} if frame.iso else {}),
    }
    _write(path.with_suffix(".png"), encode_png(levels.round().numpy().astype(np.uint16)))
    _write(path.with_suffix(".toml"), tomli_w.dumps(facts).encode())


def _write_srgb(folder: Path, name: str, picture: NDArray[np.uint8], sigma: float, seed: int) -> None:
    blurred = gaussian_blur(as_image(picture), 0.6, 0.6, 0.0)
    noisy = gaussian_noise(blurred, sigma, torch.Generator().manual_seed(seed))
    _write(folder / "lq" / f"{name}.png", encode_png(as_pixels(jpeg(noisy, 90))))
    _write(folder / "gt" / f"{name}.png", encode_png(picture))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
