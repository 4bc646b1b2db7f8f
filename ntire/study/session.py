"""What an observer may do now, and with what: the page that comes next, the trial that is asked, the pictures of it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ntire.study.deck import Trial, hand
from ntire.study.design import PICTURES, Design, picture_file
from ntire.study.keys import Keys, hashed, new_token
from ntire.study.store import Observer, Store

Stage = Literal["closed", "consent", "check", "trials", "done"]
STOPPED = "stopped"
INVITED = "invitations"
LENIENT = 0.1
"""Seconds by which clocks may differ about the least viewing time."""
NAME_LENGTH = 80


class TooSoon(Exception):
    """An answer before the pictures were there for long enough."""


class Ballot(BaseModel):
    """What a browser sends for one trial."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    position: Annotated[int, Field(ge=0)]
    nonce: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{8,64}$")]
    """By chance, so that a vote that is sent again counts once."""
    answers: dict[str, tuple[int, ...]]
    seconds: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    """While the pictures were seen."""


class ScreenCheck(BaseModel):
    """What the check of a screen found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: Annotated[int, Field(ge=1, le=100_000)]
    height: Annotated[int, Field(ge=1, le=100_000)]
    """Of the window, in CSS pixels."""
    ratio: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
    """Device pixels of a CSS pixel."""
    zoom: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
    dark: Annotated[int, Field(ge=0, le=9)]
    light: Annotated[int, Field(ge=0, le=9)]
    colour: Annotated[int, Field(ge=0, le=9)]
    """Questions answered rightly, of two each."""


@dataclass
class Site:
    """A study that is served."""

    folder: Path
    design: Design
    store: Store
    keys: Keys
    served: dict[int, tuple[int, float]] = field(default_factory=dict)
    """For each observer the trial that was handed out last, and when."""

    def __post_init__(self) -> None:
        self.hand = lru_cache(maxsize=4096)(lambda slot: hand(self.design, slot))

    @property
    def invited(self) -> int:
        """How many invitations there are."""
        return int(self.store.meta(INVITED) or self.design.access.invitations)

    @property
    def stopped(self) -> bool:
        """Whether the organiser has closed the study."""
        return self.store.meta(STOPPED) == "yes"

    def enter(self, token: str) -> Observer | None:
        """Who comes with that link: an observer, also a new one if it is an invitation; None for a wrong one."""
        known = self.store.by_token(hashed(token))
        if known is not None:
            return known
        number = next((one for one in range(self.invited) if self.keys.invitation(one) == token), None)
        if number is None or self.stopped:
            return None
        return self.store.join(hashed(token), f"invitation {number + 1}", self.design.access.most)

    def register(self, name: str) -> str | None:
        """The token of a new observer in an open study; None if there are enough."""
        token = new_token()
        return token if self.store.join(hashed(token), name[:NAME_LENGTH], self.design.access.most) else None

    def stage(self, observer: Observer) -> Stage:
        """The page that an observer is to see."""
        if observer.answered >= self.design.length:
            return "done"
        if self.stopped or observer.excluded:
            return "closed"
        if observer.slot is None:
            return "consent"
        return "trials" if observer.checked else "check"

    def trial(self, observer: Observer, position: int) -> Trial:
        """One of an observer's trials."""
        assert observer.slot is not None
        found: Trial = self.hand(observer.slot)[position]
        return found

    def asked(self, observer: Observer) -> dict[str, Any]:
        """The trial that is asked now, as the browser needs it, and the pictures of the one after it."""
        session, position, stage = self.design.session, observer.answered, self.stage(observer)
        found: dict[str, Any] = {
            "stage": stage, "position": position, "total": self.design.length, "undo": stage == "trials" and position > 0,
        }  # fmt: skip
        if stage != "trials":
            return found
        self.served[observer.id] = position, time.monotonic()
        every = session.break_every
        found["rest"] = session.break_seconds if every and position and position % every == 0 else None
        found["trial"] = self._pictures(observer, position)
        found["next"] = self._pictures(observer, position + 1) if position + 1 < self.design.length else None
        return found

    def _pictures(self, observer: Observer, position: int) -> dict[str, Any]:
        region = self.design.regions[self.trial(observer, position).region]
        named = {place: self.keys.picture(observer.id, position, place) for place in self._places()}
        return {
            "pictures": [named[place] for place in range(self.design.shown_at_once)],
            "beside": [named[place] for place in ("input", "truth") if place in named],
            "width": region.width, "height": region.height,
        }  # fmt: skip

    def _places(self) -> tuple[int | Literal["input", "truth"], ...]:
        beside: tuple[Literal["input", "truth"], ...] = ("input", "truth") if self.design.truth else ("input",)
        return (*range(self.design.shown_at_once), *beside)

    def picture(self, observer: Observer, code: str) -> Path | None:
        """The file of a picture of this trial, the next or the one before; None for any other."""
        if self.stage(observer) != "trials":
            return None
        for position in range(max(observer.answered - 1, 0), min(observer.answered + 2, self.design.length)):
            for place in self._places():
                if self.keys.picture(observer.id, position, place) == code:
                    trial = self.trial(observer, position)
                    what = trial.shown[place] if isinstance(place, int) else place
                    return self.folder / PICTURES / picture_file(trial.region, what, len(self.design.entries))
        return None

    def vote(self, observer: Observer, ballot: Ballot) -> None:
        """Take an answer. Raises ValueError for one that is none, TooSoon, OutOfTurn and NotStored."""
        if ballot.position >= self.design.length:
            raise ValueError("there is no such trial")
        check_answers(self.design, ballot.answers)
        least = self.design.session.least_seconds
        position, since = self.served.get(observer.id, (None, 0.0))
        waited = time.monotonic() - since if position == ballot.position else ballot.seconds
        if min(waited, ballot.seconds) < least - LENIENT:
            raise TooSoon
        trial = self.trial(observer, ballot.position)
        self.store.vote(
            observer.id,
            ballot.position,
            ballot.nonce,
            trial,
            ballot.answers,
            round(ballot.seconds, 3),
            self.design.length,
        )


def check_answers(design: Design, answers: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError unless every criterion has an answer of the study's kind."""
    if set(answers) != {one.name for one in design.criteria}:
        raise ValueError("expected one answer to every question")
    for answer in answers.values():
        if design.kind == "opinion":
            valid = len(answer) == 1 and 1 <= answer[0] <= 5
        elif design.kind == "ranking":
            valid = sorted(answer) == list(range(1, design.shown_at_once + 1))
        else:
            valid = answer in ((1, 2), (2, 1)) or (design.ties and answer == (1, 1))
        if not valid:
            raise ValueError("expected an answer that the page offers")
