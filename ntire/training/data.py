"""Training pairs made from clean pictures: every sample is a function of the seed and its number alone.

So a run that was stopped goes on with exactly the samples that it would have had, whatever the number of workers.
"""

import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from ntire import UserError
from ntire.files import sha256_of
from ntire.image import SUFFIXES, Pixels, UnreadableImage, as_image, read_header, read_pixels
from ntire.training.parallel import Group
from ntire.training.recipe import Degradation, Recipe, Stage

CACHED_BYTES = 1 << 30
"""Decoded pictures that a worker keeps."""


def clean_images(folder: Path, patch: int) -> list[Path]:
    """All pictures below `folder` in stable order.

    Raises UserError that lists the unreadable ones and those smaller than `patch`, or an empty folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: expected a folder of clean pictures to train on, found none.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise UserError(f"{folder}: expected pictures ({', '.join(sorted(SUFFIXES))}), found none.")
    problems = []
    for path in paths:
        try:
            header = read_header(path)
        except UnreadableImage as error:
            problems.append(str(error))
            continue
        if min(header.height, header.width) < patch:
            problems.append(f"{path}: smaller than the training patch, {header.height} x {header.width} < {patch}")
    if problems:
        shown = "\n  ".join([*problems[:10], *([f"and {len(problems) - 10} more"] if len(problems) > 10 else [])])
        raise UserError(
            f"{len(problems)} of {len(paths)} pictures cannot be used (a smaller --patch may help):\n  {shown}"
        )
    return paths


def hold_out(paths: Sequence[Path], count: int) -> tuple[list[Path], list[Path]]:
    """Split into (training, validation): the `count` pictures whose names have the smallest hashes are held out."""
    if len(paths) <= count:
        raise UserError(f"expected more than the {count} pictures to hold out for validation, found {len(paths)}.")
    held = set(sorted(paths, key=lambda path: sha256_of(path.name.encode()))[:count])
    return [path for path in paths if path not in held], sorted(held)


def generator(*numbers: int) -> Generator:
    """A generator that is a function of `numbers` alone."""
    # Hashing ints is not enough here: near seeds must give far streams.
    return Generator().manual_seed(random.Random(repr(numbers)).getrandbits(63))


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Sample number k: a random crop of a random picture, flipped and turned, and its degraded version."""

    def __init__(self, paths: Sequence[Path], degradation: Degradation, patch: int, seed: int) -> None:
        self.paths = paths
        self.degradation = degradation
        self.patch = patch
        self.seed = seed
        self._cache: OrderedDict[Path, Pixels] = OrderedDict()

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        rng = generator(self.seed, number)
        pixels = self._decoded(self.paths[int(torch.randint(len(self.paths), (), generator=rng))])
        top, left = (int(torch.randint(size - self.patch + 1, (), generator=rng)) for size in pixels.shape[:2])
        gt = as_image(pixels[top : top + self.patch, left : left + self.patch])
        turns, flip = int(torch.randint(4, (), generator=rng)), bool(torch.randint(2, (), generator=rng))
        gt = gt.rot90(turns, (1, 2))
        gt = gt.flip(2) if flip else gt
        return self.degradation(gt.contiguous(), rng)

    def _decoded(self, path: Path) -> Pixels:
        if path in self._cache:
            self._cache.move_to_end(path)
            return self._cache[path]
        self._cache[path] = read_pixels(path)
        while sum(pixels.nbytes for pixels in self._cache.values()) > CACHED_BYTES and len(self._cache) > 1:
            self._cache.popitem(last=False)
        return self._cache[path]


def batches(
    paths: Sequence[Path],
    recipe: Recipe,
    stage: Stage,
    first_sample: int,
    steps: range,
    seed: int,
    workers: int,
    group: Group,
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
        Pairs(paths, stage.degradation or recipe.degradation, stage.patch, seed),
        batch_size=share,
        sampler=numbers,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # Forked workers inherit the threads' locks of torch and OpenCV and may hang.
        multiprocessing_context="spawn" if workers else None,
    )
    yield from loader


def validation_pairs(
    paths: Sequence[Path], degradation: Degradation, stride: int, seed: int, side: int = 256
) -> list[tuple[Tensor, Tensor]]:
    """One pair a picture: the central crop of at most `side` pixels on the grid of `stride`, always degraded alike."""
    pairs = []
    for number, path in enumerate(paths):
        image = as_image(read_pixels(path))
        height, width = (min(size, side) // stride * stride for size in image.shape[-2:])
        top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
        gt = image[:, top : top + height, left : left + width].contiguous()
        pairs.append(degradation(gt, generator(seed, -1, number)))
    return pairs
