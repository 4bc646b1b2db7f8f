"""`study.toml`: everything that decides what observers see and how their answers are read, as data that a person can edit."""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ntire import UserError
from ntire.files import read_toml, write_atomically

STUDY = "study.toml"
PICTURES = "pictures"
Kind = Literal["pairs", "ranking", "opinion"]
MOST_IN_A_RANKING = 6
SCALE = {5: "Excellent", 4: "Good", 3: "Fair", 2: "Poor", 1: "Bad"}
"""The five levels of absolute category rating (ITU-T P.910, ITU-R BT.500)."""
INSTRUCTIONS = """\
You will see restorations of the same input, made by different methods. Nothing tells which method made which picture.
Judge the pictures as they are at 100 %, from your usual distance; zoom to check what you suspect, not to search for faults.
The input is beside them: a good restoration adds natural detail and removes damage, and stays true to what was there.
There are no right answers. Take your time, rest when you are tired, and come back later if you like."""
CONSENT = """\
I take part of my own free will and may stop at any time. My answers, the time they took and the size of my screen are stored \
under a number; my name, if I give one, is seen by the organisers only and is in no published file."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Criterion(_Part):
    """One question that is asked of every trial."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$")]
    question: Annotated[str, Field(min_length=1, max_length=200)]
    weight: Annotated[float, Field(ge=0)] = 1.0
    """In the mark, of the criteria's sum."""


CRITERIA = {
    "overall": (Criterion(name="overall", question="Which restoration is better?"),),
    "raim": (
        Criterion(name="texture", question="Which has the more natural texture and detail?"),
        Criterion(name="colour-noise", question="Which is freer of colour noise and smearing?"),
        Criterion(name="artefacts", question="Which is freer of artefacts: worms, blocks, halos?"),
        Criterion(name="fidelity", question="Which is truer to the input?"),
    ),
}
"""One question, or the four things that RAIM's judges looked at, as they are put for a pair."""
RANKINGS = {
    "overall": "Which restoration is the best, which the next best?",
    "texture": "Which has the most natural texture and detail, which the next?",
    "colour-noise": "Which is freest of colour noise and smearing, which the next?",
    "artefacts": "Which is freest of artefacts: worms, blocks, halos? Which the next?",
    "fidelity": "Which is truest to the input, which the next?",
}
"""The same questions, as they are put for a ranking."""
OPINIONS = {
    "overall": "How good is this restoration?",
    "texture": "How natural are texture and detail?",
    "colour-noise": "How free is it of colour noise and smearing?",
    "artefacts": "How free is it of artefacts: worms, blocks, halos?",
    "fidelity": "How true is it to the input?",
}
"""And for an opinion."""


class Participant(_Part):
    """An entry that takes part. Its name never leaves the organiser's folder."""

    name: Annotated[str, Field(min_length=1)]
    team: str


class Region(_Part):
    """What is shown of one picture, in its own pixels."""

    picture: str
    top: Annotated[int, Field(ge=0)]
    left: Annotated[int, Field(ge=0)]
    height: Annotated[int, Field(gt=0)]
    width: Annotated[int, Field(gt=0)]
    anchor_of: Annotated[int, Field(ge=0)]
    """The entry, by its place in the list, whose degraded copy is this region's anchor."""


class Session(_Part):
    """What one observer goes through."""

    trials: Annotated[int, Field(ge=1, le=2000)]
    """Without repeats and anchors."""
    repeats: Annotated[int, Field(ge=0, le=100)] = 4
    """Trials that come a second time, sides exchanged: does the observer answer alike?"""
    anchors: Annotated[int, Field(ge=0, le=100)] = 4
    """Trials with a degraded copy of an entry beside it: does the observer see what everybody sees?"""
    break_every: Annotated[int, Field(ge=0)] = 25
    """Trials between two breaks; 0 for none. A session of BT.500 lasts at most half an hour."""
    break_seconds: Annotated[int, Field(ge=0, le=3600)] = 20
    """The least that a break lasts."""
    least_seconds: Annotated[float, Field(ge=0, le=60)] = 2.0
    """An answer is taken after the pictures have been there for so long."""


class Access(_Part):
    """Who may take part."""

    open: bool = False
    """Whether anybody may register with a name; otherwise only those with an invitation."""
    invitations: Annotated[int, Field(ge=0, le=10_000)] = 30
    most: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Observers at most."""


class Screening(_Part):
    """Which observers are left out of the results. They are listed with the rule that they break, and what it found."""

    least_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of the session answered, at least."""
    anchors_failed: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of anchors not judged worse than what they were made of (first question), at most."""
    repeats_changed: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Share of repeats answered the other way round, at most; for an opinion, off by more than one level."""
    one_side: Annotated[float, Field(ge=0.5, le=1)] = 0.95
    """Share of decided pairs won by the same side, at most."""
    kurtosis: bool = True
    """Whether opinion scores are screened by the procedure of BT.500 (2.3.1)."""


class Marks(_Part):
    """How a result becomes the mark of phase 3: lowest + (highest - lowest) x share.

    The share is that of comparisons that an entry is expected to win against the others, a tie as half of one; of opinion
    scores it is (mean - 1) / 4.
    """

    column: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "user_study"
    lowest: float = 0.0
    highest: float = 20.0

    @model_validator(mode="after")
    def _tells_them_apart(self) -> Self:
        if self.column in ("entry", "team"):
            raise ValueError(f"expected a column of its own for the mark, found {self.column}, which names the entries")
        if self.lowest >= self.highest:
            raise ValueError(f"expected lowest below highest, found {self.lowest:g} and {self.highest:g}")
        return self


class Design(_Part):
    """A study."""

    format: Literal[1] = 1
    title: Annotated[str, Field(min_length=1, max_length=120)]
    track: str
    kind: Kind = "pairs"
    ties: bool = True
    """Whether "no difference" is an answer to a pair."""
    size: Annotated[int, Field(ge=2, le=MOST_IN_A_RANKING)] = 4
    """Pictures in a ranking, at most."""
    seed: int = 0
    surround: Literal["grey", "dark", "light"] = "grey"
    """What is around the pictures: neutral, with about 15 % of the white's luminance (BT.500), nearly dark, or light."""
    instructions: str = INSTRUCTIONS
    consent: str = CONSENT
    contact: Annotated[str, Field(max_length=200)] = ""
    session: Session
    access: Access = Access()
    screening: Screening = Screening()
    marks: Marks = Marks()
    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1, max_length=8)]
    truth: bool = False
    """Whether the ground truth may be looked at beside the input."""
    entries: Annotated[tuple[Participant, ...], Field(min_length=2, max_length=100)]
    regions: Annotated[tuple[Region, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for what, names in (
            ("criterion", [one.name for one in self.criteria]),
            ("entry", [one.name for one in self.entries]),
        ):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"the {what} {', '.join(sorted(twice))} stands there twice")
        if self.kind == "ranking" and len(self.entries) < 3:
            raise ValueError("expected three entries or more to rank, found two: choose pairs")
        if not sum(one.weight for one in self.criteria):
            raise ValueError("expected a criterion with a weight above 0, found none")
        if wrong := [one.picture for one in self.regions if one.anchor_of >= len(self.entries)]:
            raise ValueError(f"anchor_of names no entry: {', '.join(wrong)}")
        return self

    @property
    def shown_at_once(self) -> int:
        """Pictures in a trial."""
        return {"pairs": 2, "ranking": min(self.size, len(self.entries)), "opinion": 1}[self.kind]

    @property
    def length(self) -> int:
        """Trials of one observer, repeats and anchors among them."""
        return self.session.trials + self.repeats + self.session.anchors

    @property
    def repeats(self) -> int:
        """Repeats that are possible: a trial comes twice at most."""
        return min(self.session.repeats, self.session.trials)

    def identity(self) -> str:
        """The sha256 of what decides which trials are seen: votes belong to exactly this."""
        said = self.model_dump_json(include={"kind", "size", "seed", "session", "criteria", "entries", "regions"})
        return hashlib.sha256(said.encode()).hexdigest()


def open_study(folder: Path) -> Design:
    """Read a study's design. Raises UserError for a folder that is none, or mistakes in its TOML."""
    if not (folder / STUDY).is_file():
        raise UserError(f"{folder}: expected a study with a {STUDY}, found none. `ntire study new` makes one.")
    design = read_toml(folder / STUDY, Design)
    missing = [name for name in files_of(design) if not (folder / PICTURES / name).is_file()]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise UserError(
            f"{folder / PICTURES}: expected {', '.join(missing[:5])}{more}, found none. Make the study anew."
        )
    return design


def write_design(folder: Path, design: Design) -> None:
    """Write `study.toml`."""
    write_atomically(folder / STUDY, tomli_w.dumps(design.model_dump(mode="python"), multiline_strings=True))


def picture_file(region: int, shown: int | Literal["input", "truth"], entries: int) -> str:
    """The file of an entry in a region, by its place in the list; its number for the region's anchor is that of the entries."""
    what = shown if isinstance(shown, str) else "anchor" if shown == entries else f"entry{shown:02d}"
    return f"region{region:04d}-{what}.png"


def files_of(design: Design) -> list[str]:
    """All pictures that a study has."""
    count = len(design.entries)
    beside: list[Literal["input", "truth"]] = ["input", "truth"] if design.truth else ["input"]
    shown = [*range(count + (1 if design.session.anchors else 0)), *beside]
    return [picture_file(region, one, count) for region in range(len(design.regions)) for one in shown]
