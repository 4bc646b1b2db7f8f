"""Results and pictures to pages: every text escaped, in a folder or in one file, without a request to any network."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ntire import __version__
from ntire.files import write_atomically
from ntire.report import plots
from ntire.report.pictures import Key, ShownPicture
from ntire.report.results import ShownEntry, ShownTrack
from ntire.scoring.metrics import METRICS
from ntire.scoring.track import formula, in_words
from ntire.text import printable

STATIC = ("report.css", "report.js", "viewer.js")
TELLING = 6
"""Best and worst pictures that an entry's page shows."""


@dataclass(frozen=True)
class Cell:
    """What one entry made of one picture."""

    entry: ShownEntry
    status: str
    values: Mapping[str, float]
    problem: str
    above: float | None
    """How far its score lies above the field's median."""
    picture: ShownPicture | None


@dataclass(frozen=True)
class Contents:
    """All that the templates ask for."""

    title: str
    tracks: Sequence[ShownTrack]
    pictures: Mapping[Key, ShownPicture]
    chosen: Mapping[int, Sequence[str]]
    """By track's number: the images that have a place in the report, in its order."""
    one_file: bool
    remarks: Sequence[str] = ()
    study: str = ""
    """The whole page of a user study's results, if there was one."""

    version = __version__

    def href(self, kind: str, *numbers: int) -> str:
        """The address of a page, or of its part where there is only one."""
        name = "-".join(map(str, (kind, *numbers)))
        if self.one_file:
            return f"#{name}"
        return "index.html" if kind == "index" else f"{name}.html"

    @cached_property
    def fields(self) -> dict[int, dict[str, dict[int, float]]]:
        """By track: how far each entry lies above the median at each image."""
        return {track.number: track.beside_field() for track in self.tracks}

    @cached_property
    def places(self) -> dict[int, dict[str, int]]:
        """By track: the numbers of the images that have a page."""
        return {number: {name: at for at, name in enumerate(names, 1)} for number, names in self.chosen.items()}

    def cells(self, track: ShownTrack, name: str) -> list[Cell]:
        """Every entry's row of an image, the best first."""
        above = self.fields[track.number].get(name, {})
        found = []
        for entry in track.entries:
            if not entry.images:  # nothing of it could be read
                continue
            row = entry.images.get(name)
            picture = self.pictures.get((track.number, entry.number, name))
            status, values, problem = (row.status, row.values, row.problem) if row else ("not scored", {}, "")
            found.append(Cell(entry, status, values, problem, above.get(entry.number), picture))
        return sorted(found, key=lambda cell: -math.inf if cell.above is None else cell.above, reverse=True)

    def viewer(self, track: ShownTrack, name: str) -> dict[str, Any]:
        """What the viewer of pictures is given: input, entries, truth."""
        metric = next(iter(track.per_image), "")
        pictures = [self._seen(self.pictures.get((track.number, "lq", name)), "input", "", "")]
        for cell in self.cells(track, name):
            missing = cell.status if cell.status != "ok" else "not in this report"
            note = f"{self.number(cell.values[metric], track)} {metric}" if metric in cell.values else cell.status
            pictures.append(self._seen(cell.picture, cell.entry.name, note, missing))
        pictures.append(self._seen(self.pictures.get((track.number, "gt", name)), "truth", "", ""))
        kept = [one for one in pictures if one]
        sizes = [self.pictures[key].size for key in self._keys(track, name) if key in self.pictures]
        size = [sizes[0][1], sizes[0][0]] if sizes else None
        return {"pictures": kept, "size": size, "a": 0, "b": min(1, len(kept) - 1)}

    def _keys(self, track: ShownTrack, name: str) -> list[Key]:
        return [
            (track.number, "gt", name),
            *((track.number, one.number, name) for one in track.entries),
            (track.number, "lq", name),
        ]

    def _seen(self, picture: ShownPicture | None, label: str, note: str, missing: str) -> dict[str, str] | None:
        if picture is None:
            return {"label": label, "note": note, "missing": missing} if missing else None
        if self.one_file:
            return {"label": label, "note": note, "inlined": self.inlined_key(picture)}
        shown = {"label": label, "note": note, "thumb": picture.small}
        return {**shown, "src": picture.full} if picture.full else shown

    @cached_property
    def _keys_of_inlined(self) -> dict[int, str]:
        return {
            id(picture): "-".join(map(str, (key[0], key[1], at)))
            for at, (key, picture) in enumerate(self.pictures.items())
        }

    def inlined_key(self, picture: ShownPicture) -> str:
        """What a picture is called in the one file's table of pictures: each is in it once, however often it is shown."""
        return self._keys_of_inlined[id(picture)]

    @property
    def inlined(self) -> dict[str, str]:
        """That table."""
        return {self.inlined_key(picture): picture.small for picture in self.pictures.values()}

    def telling(self, track: ShownTrack, entry: ShownEntry) -> tuple[list[str], list[str]]:
        """The images at which an entry gains most on the field, and those at which it loses most."""
        above = {name: of[entry.number] for name, of in self.fields[track.number].items() if entry.number in of}
        known = [name for name in above if name in self.places[track.number]]
        best = sorted((name for name in known if above[name] >= 0), key=lambda name: (-above[name], name))
        worst = sorted((name for name in known if above[name] < 0), key=lambda name: (above[name], name))
        return best[:TELLING], worst[:TELLING]

    def hardness(self, track: ShownTrack, name: str) -> tuple[float, float]:
        """The median score of an image, and how far entries lie apart; NaN without scores."""
        rows = [one.images[name] for one in track.entries if name in one.images]
        scores = sorted(score for row in rows if (score := track.score_of(row)) is not None and math.isfinite(score))
        return (scores[len(scores) // 2], scores[-1] - scores[0]) if scores else (math.nan, math.nan)

    def cover(self, track: ShownTrack, name: str) -> ShownPicture | None:
        """The picture that stands for an image in lists."""
        return next((self.pictures[key] for key in self._keys(track, name) if key in self.pictures), None)

    def strips(self, track: ShownTrack, entry: ShownEntry) -> list[tuple[str, plots.Strip]]:
        """Where an entry stands in the total and in each metric."""
        decimals = track.rules.decimals
        totals = {one.number: one.line["total"] for one in track.entries if one.line["valid"]}
        total = plots.strip(totals, entry.number, higher_is_better=True, decimals=decimals)
        found = [("total", total)] if total else []
        for name in track.metrics:
            values = {one.number: one.line["metrics"].get(name) for one in track.entries}
            made = plots.strip(values, entry.number, higher_is_better=METRICS[name].higher_is_better, decimals=decimals)
            found += [(name, made)] if made else []
        return found

    def number(self, value: Any, track: ShownTrack) -> str:
        """A value as the track rounds it; infinity is a word."""
        if value is None or value == "":
            return ""
        if isinstance(value, str):
            return "∞" if value == "inf" else value
        return "∞" if math.isinf(value) else f"{value:.{track.rules.decimals}f}"


def pages_of(shown: Contents) -> dict[str, str]:
    """Every page by its file's name."""
    environment = _environment()

    def page(template: str, **values: Any) -> str:
        return environment.get_template(template).render(shown=shown, **values)

    if shown.one_file:
        return {"": page("single.html", static={name: Markup(_static(name)) for name in STATIC})}
    found = {"index.html": page("index.html")}
    if shown.study:
        found[shown.href("study")] = page("study.html")
    for track in shown.tracks:
        found[shown.href("pictures", track.number)] = page("pictures.html", track=track)
        for entry in track.entries:
            found[shown.href("entry", entry.number)] = page("entry.html", track=track, entry=entry)
        for at, name in enumerate(shown.chosen[track.number], 1):
            found[shown.href("picture", track.number, at)] = page("picture.html", track=track, name=name, at=at)
    return found


def write_pages(shown: Contents, out: Path) -> None:
    """Write the pages and what they need into the folder `out`, or all of it into the file `out`."""
    pages = pages_of(shown)
    if shown.one_file:
        write_atomically(out, pages[""])
        return
    (out / "static").mkdir(parents=True, exist_ok=True)
    for name in STATIC:
        write_atomically(out / "static" / name, _static(name))
    # The page that one opens comes last: where it is, all others are.
    for name in sorted(pages, key=lambda name: (name == "index.html", name)):
        write_atomically(out / name, pages[name])


def _static(name: str) -> str:
    return (files("ntire.report") / "static" / name).read_text(encoding="utf-8")


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("ntire.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(METRICS=METRICS, plots=plots, formula=formula, in_words=in_words, enumerate=enumerate, zip=zip)
    made.filters["shown"] = lambda name: printable(str(name))
    made.filters["pretty"] = lambda value: json.dumps(value, ensure_ascii=False)
    return made
