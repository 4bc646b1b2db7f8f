"""How a data set lies on disk, as data: templates of paths for its inputs and their truth, and the pairs that they make.

A template is a path below whatever folder the data set was unpacked to. `{name}` stands for some letters of one part of a
path, `*` for any or none, `{subset}` for the name of the track's subset; capitals do not matter. The truth of an input is
the file whose template has the same letters in the same places:

    hazy/{id}_*_*.jpg     and  gt/{id}.png            0001_0.8_0.2.jpg -> 0001.png
    {seq}/blur/{frame}.png and {seq}/sharp/{frame}.png
    {subset}/{id}.png     and  clear/{id}.png         one truth for eleven kinds of damage
    {id}x4.png            and  {id}.png               0801x4.png -> 0801.png
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

HOLE = re.compile(r"\{([a-z]+)\}|\*")
SUBSET = "subset"
Folders = Mapping[Path, list[str]]
"""The names of the pictures in each folder."""


class Layout(BaseModel):
    """One of the ways in which a data set is found on disk."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Whose it is."""
    truth: str
    """Template of the clean pictures."""
    inputs: str = ""
    """Template of the damaged ones; empty where the track makes them of the clean ones."""
    picture: str = ""
    """What a picture is called in an entry, such as "{id}"; by default after its input, without folders of fixed names."""
    split: str = ""
    """A text file at the data set's root that names its inputs, one a line: others do not belong to the set."""

    @model_validator(mode="after")
    def _consistent(self) -> "Layout":
        asked = holes(self.inputs or self.truth)
        for what, template in (("truth", self.truth), ("picture", self.picture)):
            unknown = holes(template) - asked - {SUBSET}
            if unknown:
                raise ValueError(f"{what}: {{{'}, {'.join(sorted(unknown))}}} does not occur in {self.inputs!r}")
        for template in (self.inputs, self.truth):
            if template.startswith("/") or ".." in template.split("/"):
                raise ValueError(f"{template!r}: expected a path below the data set's folder")
        return self

    def in_words(self) -> str:
        """Where its files are."""
        return f"{self.inputs} with {self.truth}" if self.inputs else self.truth


@dataclass(frozen=True)
class Pair:
    """A picture of a data set."""

    name: str
    """What it is called in an entry, without suffix."""
    source: Path
    """Its input, or where there is none the clean picture."""
    truth: Path | None
    """None where there is none for the input."""
    expected: str
    """Where the truth is by the template."""


@dataclass(frozen=True)
class Candidate:
    """A data set as it was found: one of its layouts below one folder."""

    layout: Layout
    base: Path
    pairs: tuple[Pair, ...]

    @property
    def whole(self) -> int:
        """Pairs with both pictures."""
        return sum(pair.truth is not None for pair in self.pairs)


def holes(template: str) -> set[str]:
    """The names that stand in braces."""
    return {found[1] for found in HOLE.finditer(template) if found[1]}


def candidates(layout: Layout, folders: Folders, subset: str) -> Iterator[Candidate]:
    """Every folder below which a layout is found, with what is there."""
    truths = _matches(layout.truth, folders, subset)
    inputs = _matches(layout.inputs, folders, subset) if layout.inputs else truths
    compared = holes(layout.truth) - {SUBSET}
    for base, found in inputs.items():
        known = {_key(values, compared): path for values, path in truths.get(base, ())}
        pairs = [
            Pair(
                _name(layout, subset, values, base, path), path, known.get(_key(values, compared)),
                filled(layout.truth, {**values, SUBSET: subset}),
            )
            for values, path in found
        ]  # fmt: skip
        yield Candidate(layout, base, tuple(sorted(pairs, key=lambda pair: pair.name)))


def filled(template: str, values: Mapping[str, str]) -> str:
    """A template with the letters in their places; `*` stays."""
    return HOLE.sub(lambda hole: values.get(hole[1], hole[0]) if hole[1] else "*", template)


def _key(values: Mapping[str, str], names: Iterable[str]) -> tuple[str, ...]:
    return tuple(values[name].casefold() for name in sorted(names))


def _name(layout: Layout, subset: str, values: Mapping[str, str], base: Path, path: Path) -> str:
    if layout.picture:
        return filled(layout.picture, {**values, SUBSET: subset})
    template = (layout.inputs or layout.truth).split("/")
    parts = path.relative_to(base).with_suffix("").parts
    moving = [part for part, own in zip(parts, template, strict=True) if "*" in own or holes(own) - {SUBSET}]
    return "/".join(moving or parts[-1:])


def _matches(template: str, folders: Folders, subset: str) -> dict[Path, list[tuple[dict[str, str], Path]]]:
    """The pictures that fit a template, by the folder below which they do."""
    *above, last = (_pattern(part, subset) for part in template.split("/"))
    found: dict[Path, list[tuple[dict[str, str], Path]]] = {}
    for folder, names in folders.items():
        parts = folder.parts[len(folder.parts) - len(above) :] if above else ()
        outer = [pattern.fullmatch(part) for pattern, part in zip(above, parts, strict=False)]
        if len(parts) < len(above) or None in outer:
            continue
        base = folder.parents[len(above) - 1] if above else folder
        for name in names:
            own = last.fullmatch(name)
            if own is None:
                continue
            values: dict[str, str] = {}
            matched = [one.groupdict() for one in (*outer, own) if one is not None]
            agree = all(values.setdefault(key, value) == value for one in matched for key, value in one.items())
            if agree:
                found.setdefault(base, []).append((values, folder / name))
    return found


def _pattern(part: str, subset: str) -> re.Pattern[str]:
    """The expression that one part of a template stands for."""
    text, seen, end = "", set[str](), 0
    for hole in HOLE.finditer(part):
        text += re.escape(part[end : hole.start()])
        end = hole.end()
        if hole[1] is None:
            text += "[^/]*"
        elif hole[1] == SUBSET:
            text += re.escape(subset)
        elif hole[1] in seen:
            text += f"(?P={hole[1]})"
        else:
            seen.add(hole[1])
            text += f"(?P<{hole[1]}>[^/]+)"
    return re.compile(text + re.escape(part[end:]), re.IGNORECASE)
