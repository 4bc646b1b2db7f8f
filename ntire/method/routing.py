"""How often a router is right: pictures whose damage is known, and what it takes them for."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


class TellsDamage(Protocol):
    """What tells kinds of damage apart: a network."""

    words: tuple[str, ...]

    def eval(self) -> Any:
        """For use, not for training."""

    def to(self, device: str) -> Any:
        """Move to a device."""

    def probabilities(self, picture: Tensor) -> Tensor:
        """How far each word is what a picture (3, H, W) in [0, 1] suffers from: (words,), sums to 1."""


@runtime_checkable
class HasRouter(Protocol):
    """A method whose networks follow from what a router sees in the picture; the router can be had without the rest."""

    @classmethod
    def router_from(cls, weights: Path | None, settings: Mapping[str, str]) -> TellsDamage:
        """The router, filled from what a run would fill it from, or from what is at hand without `weights`.

        Raises UserError for weights that are missing or do not fit, and for settings that are not the router's.
        """


@dataclass(frozen=True)
class Judged:
    """One picture."""

    image: str
    kind: str
    """What it suffers from."""
    taken_for: str
    probability: float
    """That the router gives `taken_for`."""


@dataclass(frozen=True)
class Accuracy:
    """What a router made of pictures whose kinds are known."""

    words: tuple[str, ...]
    """All kinds that it tells apart."""
    judged: tuple[Judged, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that there were pictures of, in the router's order."""
        there = {one.kind for one in self.judged}
        return tuple(word for word in self.words if word in there)

    def confusion(self, kind: str) -> dict[str, int]:
        """What the pictures of a kind were taken for, and how many of them."""
        found = Counter(one.taken_for for one in self.judged if one.kind == kind)
        return {word: found[word] for word in self.words if found[word]}

    def share(self, kind: str | None = None) -> float:
        """Of the pictures of a kind, or of all, those that were taken for what they are: 0 to 1."""
        asked = [one for one in self.judged if kind in (None, one.kind)]
        return sum(one.taken_for == one.kind for one in asked) / len(asked)

    @property
    def mean(self) -> float:
        """The mean of the kinds' shares, in which a kind with few pictures counts as much as one with many."""
        return sum(map(self.share, self.kinds)) / len(self.kinds)

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        kinds = {
            kind: {
                "pictures": sum(one.kind == kind for one in self.judged),
                "accuracy": round(self.share(kind), 6),
                "taken_for": self.confusion(kind),
            }
            for kind in self.kinds
        }
        images = [
            {"image": one.image, "kind": one.kind, "taken_for": one.taken_for, "probability": round(one.probability, 6)}
            for one in self.judged
        ]
        return {
            "pictures": len(self.judged),
            "accuracy": round(self.share(), 6),
            "mean_of_kinds": round(self.mean, 6),
            "kinds": kinds,
            "images": images,
        }


def judged(judge: TellsDamage, pictures: Iterable[tuple[str, str, Tensor]]) -> Accuracy:
    """Ask a router about pictures: name, kind, and the picture (3, H, W) in [0, 1] of each."""
    found = []
    for image, kind, picture in pictures:
        probabilities = judge.probabilities(picture)
        first = int(probabilities.argmax())
        found.append(Judged(image, kind, judge.words[first], float(probabilities[first])))
    return Accuracy(tuple(judge.words), tuple(found))
