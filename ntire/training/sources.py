"""Which pictures each stage of a recipe draws from: the user's clean ones, others of a part's own, or pairs."""

from collections.abc import Sequence
from pathlib import Path

from ntire import UserError
from ntire.method.recipe import Part, Recipe, Stage
from ntire.training.data import Picture, Pool, clean_images, hold_out, paired_images

Split = tuple[list[Pool], list[Pool]]
"""Pools to train on, and those held out."""


def pools_of(recipe: Recipe, data: Path, held_out: int, scale: int = 1) -> list[Split]:
    """The pools of each stage; of every folder `held_out` pictures are held out. In pairs clean pictures are `scale` times as
    large.

    Raises UserError that names all parts whose pictures cannot be had from `data`, or unusable pictures.
    """
    drawn = [(stage, stage.drawn_from(recipe.degradation)) for stage in recipe.stages]
    _refuse_lacking([(stage, part) for stage, parts in drawn for part in parts if part.lacking])
    patches = [stage.patch for stage, parts in drawn for part in parts if part.pairs is None and part.pictures is None]
    shared = hold_out(clean_images(data, max(patches)), held_out) if patches else ([], [])
    found = []
    for stage, parts in drawn:
        splits = [_split(part, stage.patch, shared, held_out, scale) for part in parts]
        sizes = _weights(parts, [len(one[0]) for one in splits])
        training = [Pool(one[0], part.degradation, size) for part, one, size in zip(parts, splits, sizes, strict=True)]
        held = [Pool(one[1], part.degradation) for part, one in zip(parts, splits, strict=True)]
        found.append((training, held))
    return found


def _weights(parts: Sequence[Part], counts: Sequence[int]) -> list[float]:
    """How often parts are drawn from: by their shares; evenly where all are made of the same pictures; else by their pictures
    times repeats, which hold for folders of their own and for what the report makes afresh as well.
    """
    folders = [part.pairs is not None or part.pictures is not None for part in parts]
    if any(part.share is not None for part in parts):
        return [part.share or 0.0 for part in parts]
    if not any(folders):
        return [1.0] * len(parts)
    return [
        float(count * (part.repeats if folder or part.fresh else 1))
        for part, count, folder in zip(parts, counts, folders, strict=True)
    ]


def _split(
    part: Part, patch: int, shared: tuple[Sequence[Path], Sequence[Path]], held_out: int, scale: int
) -> tuple[Sequence[Picture], Sequence[Picture]]:
    if part.pairs is not None:
        return hold_out(paired_images(part.pairs, patch, scale), held_out)
    return hold_out(clean_images(part.pictures, patch), held_out) if part.pictures is not None else shared


def _refuse_lacking(lacking: Sequence[tuple[Stage, Part]]) -> None:
    if not lacking:
        return
    names = list(dict.fromkeys(part.name for _, part in lacking if part.degradation is None))
    kinds = list(dict.fromkeys(part.name for _, part in lacking if part.degradation is not None))
    problems = []
    if names:
        problems.append(
            f"the damage of {', '.join(names)} cannot be made from clean pictures. Give paired ones, in folders with lq and "
            f"gt: {' '.join(f'--pairs {name}=DIR' for name in names)}; or choose other stages with --stage."
        )
    if kinds:
        problems.append(
            f"{', '.join(kinds)} needs pictures of its own kind. Give clean ones: "
            f"{' '.join(f'--pictures {name}=DIR' for name in kinds)}; or paired ones with --pairs."
        )
    raise UserError("\n".join(problems))
