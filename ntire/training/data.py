"""Training pairs made from clean pictures: every sample is a function of the seed and its number alone.

So a run that was stopped goes on with exactly the samples that it would have had, whatever the number of workers.
"""

import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from ntire import UserError
from ntire.files import sha256_of
from ntire.method.recipe import Degradation, Stage
from ntire.picture.degradations import unsharp_mask
from ntire.picture.folder import walk
from ntire.picture.image import SUFFIXES, Pixels, UnreadableImage, as_image, read_header, read_pixels
from ntire.picture.scale import enlarged
from ntire.training.parallel import Group

Picture = Path | tuple[Path, Path]
"""A clean picture, or one (gt) and its damaged version (lq)."""
AnyPicture = TypeVar("AnyPicture", bound=Picture)
CACHED_BYTES = 1 << 30
"""Decoded pictures that a worker keeps."""


def clean_images(folder: Path, patch: int) -> list[Path]:
    """All pictures below `folder` in stable order.

    Raises UserError that lists the unreadable ones and those smaller than `patch`, or an empty folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: expected a folder of clean pictures to train on, found none.")
    paths = [one.path for one in walk(folder).pictures]
    if not paths:
        raise UserError(f"{folder}: expected pictures ({', '.join(sorted(SUFFIXES))}), found none.")
    _refuse([problem for path in paths if (problem := _unusable(path, patch))], len(paths))
    return paths


def paired_images(folder: Path, patch: int, scale: int = 1) -> list[tuple[Path, Path]]:
    """Clean and damaged pictures (gt, lq) of a folder with `gt` and `lq` below it, paired by their paths without suffix.

    Raises UserError that lists pictures without their other half, pairs whose clean picture is not `scale` times as large,
    and what `clean_images` refuses.
    """
    found = {part: _part(folder, part) for part in ("gt", "lq")}
    problems = [
        f"{found[part][name]}: has no picture of that name in {other}"
        for part, other in (("gt", "lq"), ("lq", "gt"))
        for name in sorted(found[part].keys() - found[other].keys())
    ]
    pairs = [(found["gt"][name], found["lq"][name]) for name in sorted(found["gt"].keys() & found["lq"].keys())]
    for pair in pairs:
        least = zip(pair, (patch, patch // scale), strict=True)
        wrong = [problem for path, side in least if (problem := _unusable(path, side))]
        gt, lq = [(0, 0)] * 2 if wrong else [(one.height, one.width) for one in map(read_header, pair)]
        if gt != enlarged(lq, scale):
            shown = f"{gt[0]} x {gt[1]} and {lq[0]} x {lq[1]}"
            size = f"1/{scale} of the size" if scale > 1 else "of the size"
            wrong = [f"{pair[1]}: not {size} of its clean picture: {shown}"]
        problems += wrong
    _refuse(problems, len(found["gt"]) + len(found["lq"]))
    return pairs


def _part(folder: Path, part: str) -> dict[str, Path]:
    """Pictures below `folder/gt` or `folder/lq` (or GT, LQ) by relative name without suffix."""
    root = next((folder / name for name in (part, part.upper()) if (folder / name).is_dir()), None)
    if root is None:
        raise UserError(f"{folder}: expected paired pictures in its folders gt and lq, found no {part}.")
    found = walk(root).pictures
    if not found:
        raise UserError(f"{root}: expected pictures ({', '.join(sorted(SUFFIXES))}), found none.")
    return {one.name: one.path for one in found}


def _unusable(path: Path, patch: int) -> str:
    """Why a picture cannot be trained on; empty if it can."""
    try:
        header = read_header(path)
    except UnreadableImage as error:
        return str(error)
    if min(header.height, header.width) < patch:
        return f"{path}: smaller than the training patch, {header.height} x {header.width} < {patch}"
    return ""


def _refuse(problems: Sequence[str], pictures: int) -> None:
    if problems:
        shown = "\n  ".join([*problems[:10], *([f"and {len(problems) - 10} more"] if len(problems) > 10 else [])])
        raise UserError(
            f"{len(problems)} of {pictures} pictures cannot be used (a smaller --patch may help):\n  {shown}"
        )


def hold_out(pictures: Sequence[AnyPicture], count: int) -> tuple[list[AnyPicture], list[AnyPicture]]:
    """Split into (training, validation): the `count` pictures whose names have the smallest hashes are held out."""
    if len(pictures) <= count:
        raise UserError(f"expected more than the {count} pictures to hold out for validation, found {len(pictures)}.")
    held = set(sorted(pictures, key=lambda picture: sha256_of(_files(picture)[0].name.encode()))[:count])
    return [picture for picture in pictures if picture not in held], sorted(held)


def _files(picture: Picture) -> tuple[Path, ...]:
    return picture if isinstance(picture, tuple) else (picture,)


def generator(*numbers: int) -> Generator:
    """A generator that is a function of `numbers` alone."""
    # Hashing ints is not enough here: near seeds must give far streams.
    return Generator().manual_seed(random.Random(repr(numbers)).getrandbits(63))


@dataclass(frozen=True)
class Pool:
    """Pictures of one kind; those without another half are degraded afresh each time."""

    pictures: Sequence[Picture]
    degradation: Degradation | None
    weight: float = 1.0
    """How often it is drawn from, in proportion to the other pools of a stage."""


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Sample number k: a random crop of a random picture, flipped and perhaps turned, and its damaged version, which is the
    same crop of the picture's other half or, where it has none, what the degradation makes of it.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        patch: int,
        seed: int,
        *,
        turns: bool = True,
        sharpened: float = 0.0,
        batches_of: tuple[int, int] | None = None,
    ) -> None:
        """`batches_of` is the number of the first sample and the size of batches that are of one pool each."""
        self.pools = pools
        self.patch = patch
        self.seed = seed
        self.turns = turns
        self.sharpened = sharpened
        """Weight of the unsharp mask on targets."""
        self.batches_of = batches_of
        self._cache: OrderedDict[Path, Pixels] = OrderedDict()

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        rng = generator(self.seed, number)
        if self.batches_of is None:
            pool = self.pools[drawn(self.pools, rng)]
        else:
            first, size = self.batches_of
            pool = self.pools[pool_of_batch(self.pools, self.seed, number - (number - first) % size)]
        chosen = pool.pictures[int(torch.randint(len(pool.pictures), (), generator=rng))]
        decoded = [self._decoded(path) for path in _files(chosen)]
        # How many times smaller than the clean picture each is: crops begin where all have a pixel.
        times = [decoded[0].shape[0] // pixels.shape[0] for pixels in decoded]
        grid = max(times)
        rooms = [(size - self.patch) // grid + 1 for size in decoded[0].shape[:2]]
        top, left = (grid * int(torch.randint(room, (), generator=rng)) for room in rooms)
        quarters, flip = int(torch.randint(4, (), generator=rng)), bool(torch.randint(2, (), generator=rng))
        # Half a turn and the flip together are every flip there is.
        turned = quarters if self.turns else quarters // 2 * 2

        def crop(pixels: Pixels, smaller: int) -> Tensor:
            rows, columns = (slice(start // smaller, (start + self.patch) // smaller) for start in (top, left))
            image = as_image(pixels[rows, columns]).rot90(turned, (1, 2))
            return (image.flip(2) if flip else image).contiguous()

        gt, *halves = map(crop, decoded, times)
        lq, gt = (halves[0], gt) if halves else _degraded(pool, gt, rng)
        return lq, unsharp_mask(gt, self.sharpened) if self.sharpened else gt

    def _decoded(self, path: Path) -> Pixels:
        if path in self._cache:
            self._cache.move_to_end(path)
            return self._cache[path]
        self._cache[path] = read_pixels(path)
        while sum(pixels.nbytes for pixels in self._cache.values()) > CACHED_BYTES and len(self._cache) > 1:
            self._cache.popitem(last=False)
        return self._cache[path]


def drawn(pools: Sequence[Pool], rng: Generator) -> int:
    """The number of one of the pools, each as likely as its weight says."""
    if len(pools) == 1:
        return 0
    weights = torch.tensor([pool.weight for pool in pools], dtype=torch.float64)
    return int(torch.multinomial(weights, 1, generator=rng))


def pool_of_batch(pools: Sequence[Pool], seed: int, first_sample: int) -> int:
    """The number of the pool that all of a batch is drawn from whose first sample has this number."""
    return drawn(pools, generator(seed, -4, first_sample))


def _degraded(pool: Pool, gt: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    if pool.degradation is None:
        raise ValueError("a clean picture without its other half, and nothing to make one")
    return pool.degradation(gt, rng)


def batches(
    pools: Sequence[Pool],
    stage: Stage,
    first_sample: int,
    steps: range,
    seed: int,
    workers: int,
    group: Group,
    *,
    turns: bool = True,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of iterations `steps` of a stage whose first sample has the number `first_sample`.

    Each process of `group` gets its part of every batch. Raises UserError for a batch that cannot be shared out evenly.
    """
    share, left = divmod(stage.batch, group.size)
    if left or not share:
        raise UserError(
            f"a batch of {stage.batch} cannot be shared out to {group.size} processes. Choose another --batch."
        )
    numbers = [
        first_sample + step * stage.batch + group.rank * share + sample for step in steps for sample in range(share)
    ]
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        Pairs(
            pools,
            stage.patch,
            seed,
            turns=turns,
            sharpened=stage.sharpened,
            batches_of=(first_sample, stage.batch) if stage.one_part_a_batch else None,
        ),
        batch_size=share,
        sampler=numbers,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # Forked workers inherit the threads' locks of torch and OpenCV and may hang.
        multiprocessing_context="spawn" if workers else None,
    )
    yield from loader


def validation_pairs(
    pools: Sequence[Pool], stride: int, seed: int, side: int = 256, scale: int = 1
) -> list[tuple[Tensor, Tensor]]:
    """One pair a picture: the central crop of at most `side` pixels on the grid of `stride`, always degraded alike.

    Clean pictures are `scale` times as large, and so are their crops' grid and their places.
    """

    def crop(path: Path, larger: int) -> Tensor:
        image = as_image(read_pixels(path))
        full = [size // larger for size in image.shape[-2:]]
        height, width = (larger * (min(size, side // scale) // stride * stride) for size in full)
        top, left = (larger * ((size - own // larger) // 2) for size, own in zip(full, (height, width), strict=True))
        return image[:, top : top + height, left : left + width].contiguous()

    pairs: list[tuple[Tensor, Tensor]] = []
    for pool in pools:
        for number, picture in enumerate(pool.pictures, len(pairs)):
            gt, *lq = map(crop, _files(picture), (scale, 1))
            pairs.append((lq[0], gt) if lq else _degraded(pool, gt, generator(seed, -1, number)))
    return pairs
