"""What `ntire verify` asks submitted code beside its images, about pictures that the seed chooses.

Of one picture: the same image again; under the real name; not faster than new pictures. Of each: nearly the same with one bit
flipped; another where a part is replaced; and `ntire.review.probes`. Then inputs made from other pictures. Results have to
follow the pixels.
"""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ntire import UserError
from ntire.entry.findings import Finding
from ntire.picture.image import Integers, as_image, as_pixels, decode_integers, encode_png, read_bytes
from ntire.picture.raw import facts_file, facts_text
from ntire.picture.resize import resized
from ntire.review.fresh_inputs import damage_is_known, fresh_inputs
from ntire.review.probes import Asked, Gap, cut, gap_of_groups, gap_of_pairs, psnr_db, turned
from ntire.runner.device_worker import Input
from ntire.scoring.track import Track

FASTER = 0.9
"""A repeated picture that takes less than this share of a new one's time was not computed again."""
LEAST_SECONDS = 0.03
"""Differences below say nothing, on a busy machine least of all."""
ROUNDS, MOST_ROUNDS = 3, 12
"""Pairs of a repeated picture and a new one; the second number where at least half of the first are suspicious."""
NEARLY_ALL = 5 / 6
"""Of the pairs have to be suspicious: chance makes some of them so, and as many the other way round."""
FLIPPED_PSNR_DB = 40.0
"""How near the result of a picture with one bit flipped stays to that of the picture."""
ALIKE_DB = 3.0
"""By how much less two pictures of one bit's difference may be alike if one of them is the known one."""
CHANGED_GAP_DB = 1.0
"""How much better a submitted input may be restored than the same one mirrored or turned, for sure."""
FRESH_GAP_DB = 3.0
"""And than other pictures with the same damage: some are harder than others."""

Restore = Callable[[Input, Path | None, str | None], tuple[float, Integers | None]]
"""Seconds of computing and result of an input, of another file in its place, under a name of its own."""


@dataclass(frozen=True)
class Probe:
    """One question about the code beside its images."""

    name: str
    passed: bool | None
    """None: it could not be asked, or its answer decides nothing."""
    found: str


class Questions:
    """Asked in turn; what is wrong is collected in `findings`, what could not be asked in `notes`."""

    def __init__(
        self,
        track: Track,
        restore: Restore,
        near: Callable[[Integers, Integers], bool],
        truths: Mapping[str, Path],
        rng: random.Random,
        scratch: Path,
    ) -> None:
        self.track, self._restore, self._near, self._truths = track, restore, near, truths
        self.rng, self._scratch = rng, scratch
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.probes: list[Probe] = []
        self.gaps: dict[str, Gap] = {}
        self._views: dict[str, tuple[Integers, ...]] = {}

    def ask(
        self,
        pictures: Sequence[tuple[Input, Integers]],
        *,
        deterministic: bool,
        own_process: bool,
        local: bool,
        fresh: int,
    ) -> None:
        """Everything about these inputs and what the code made of them, the first of them in most detail.

        `own_process`: no picture can remember another. `local`: the code says that it is.
        """
        item, first = pictures[0]
        if not self._again(item, first, deterministic):
            return  # whatever else changes an output could be chance
        _, named = self._restore(item, None, item.path.name)
        self._judge(
            "renamed", "E603", item, named is not None and self._near(named, first), "the image of the neutral name"
        )
        changeable = [(one, made, pixels) for one, made in pictures if (pixels := _changeable(one.path)) is not None]
        if not changeable:
            self.notes.append(f"a {item.path.suffix} file cannot be changed by a bit: most probes were left out")
            return
        item, first, pixels = changeable[0]
        if not own_process:
            self._repeated(item, pixels)
        self._each("one bit flipped", changeable, self._flipped)
        self._each("a part replaced", changeable, self._replaced)
        if all(pixels.ndim == 3 for _, _, pixels in changeable):
            # The colours of a mosaic would be others.
            self._each("mirrored and turned", changeable, self._turned)
        self._each("cut", changeable, self._cut, decides=local)
        self._gap_to_changed(changeable)
        self._gap_to_fresh(changeable, fresh)

    def _again(self, item: Input, first: Integers, deterministic: bool) -> bool:
        _, again = self._restore(item, None, None)
        same = again is not None and np.array_equal(again, first)
        if not same and not deterministic and again is not None:
            self.probes.append(Probe("run again", None, "differs, as the manifest says"))
            return False
        return self._judge("run again", "E606", item, same, "the same image twice")

    def _repeated(self, item: Input, pixels: Integers) -> None:
        """The same picture and new ones of its size in turn, so that nothing but a memory can make a difference."""
        pairs: list[tuple[float, float]] = []
        while len(pairs) < ROUNDS or (len(pairs) < MOST_ROUNDS and faster_of(pairs) >= 0.5):
            changed = self._changed(item, _flip(pixels, self.rng))
            order: tuple[Path | None, Path | None] = (None, changed) if len(pairs) % 2 == 0 else (changed, None)
            spent = {one: self._restore(item, one, None)[0] for one in order}
            pairs.append((spent[None], spent[changed]))
        again, new = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
        passed = faster_of(pairs) < NEARLY_ALL
        found = f"{again:.0f} ms again, {new:.0f} ms for new ones" if new > LEAST_SECONDS * 1000 else "too fast to tell"
        self._judge("repeated", "E604", item, passed, "as long as a new picture", found)

    def _flipped(self, item: Input, first: Integers, pixels: Integers) -> Asked:
        """One bit changes nearly nothing; where it changes all, as in a method that draws from it, another bit does so, too."""
        after = self._of(item, _flip(pixels, self.rng))
        if after is None or after.shape != first.shape:
            return Asked(False, "it gives no image of that size")
        psnr = psnr_db(first, after)
        if psnr >= FLIPPED_PSNR_DB:
            return Asked(True, f"{psnr:.1f} dB")
        other = self._of(item, _flip(pixels, self.rng))
        apart = None if other is None or other.shape != after.shape else psnr_db(after, other)
        alike = apart is not None and psnr > apart - ALIKE_DB
        return Asked(alike, f"{psnr:.1f} dB, and {apart or 0:.1f} dB between two such pictures")

    def _replaced(self, item: Input, first: Integers, pixels: Integers) -> Asked:
        """A part turned upside down and inverted: whoever computes shows it there."""
        changed = pixels.copy()
        height, width = pixels.shape[:2]
        part = np.s_[height // 4 : height // 4 + max(1, height // 2), width // 4 : width // 4 + max(1, width // 2)]
        changed[part] = np.iinfo(pixels.dtype).max - changed[part][::-1, ::-1]
        if np.array_equal(changed, pixels):
            return Asked(None, "the picture is too plain")
        after = self._of(item, changed)
        there = tuple(slice(self.track.scale * one.start, self.track.scale * one.stop) for one in part)
        follows = (
            after is not None and after.shape == first.shape and bool((after != first).any(axis=2)[there].mean() > 0.01)
        )
        return Asked(follows, "another image there" if follows else "the same image there")

    def _turned(self, item: Input, first: Integers, pixels: Integers) -> Asked:
        asked = turned(pixels, first, lambda changed: self._of(item, changed))
        self._views[item.name] = asked.views
        return asked

    def _cut(self, item: Input, first: Integers, pixels: Integers) -> Asked:
        return cut(pixels, first, lambda changed: self._of(item, changed))

    def _each(
        self,
        name: str,
        pictures: Sequence[tuple[Input, Integers, Integers]],
        ask: Callable[[Input, Integers, Integers], Asked],
        *,
        decides: bool = True,
    ) -> None:
        """One probe over several pictures: it is passed if none of them fails, and told by the worst."""
        answers = [(item, ask(item, first, pixels)) for item, first, pixels in pictures]
        failed = [(item, one) for item, one in answers if one.passed is False]
        told = failed or [(item, one) for item, one in answers if one.passed] or answers
        found = f"{told[0][0].name}: {told[0][1].found}" + (f", and {len(told) - 1} more" if len(told) > 1 else "")
        if not any(one.passed is not None for _, one in answers):
            self.probes.append(Probe(name, None, found))
        elif failed and not decides:
            self.probes.append(Probe(name, None, f"{found}; it says that it sees the whole picture"))
        else:
            self.probes.append(Probe(name, not failed, found))
            for item, one in failed:
                self._add("E605", f"{item.name}.png", f"a result that follows the pixels ({name})", one.found)

    def _gap_to_changed(self, pictures: Sequence[tuple[Input, Integers, Integers]]) -> None:
        """The same pictures, so that what differs is whether the code has seen them."""
        apart = []
        for item, first, _ in pictures:
            truth = self._truth(item, first)
            views = self._views.get(item.name, ())
            if truth is not None and views:
                changed = statistics.fmean(psnr_db(one, truth) for one in views)
                apart.append(psnr_db(first, truth) - changed)
        if apart:
            self._gap("mirrored and turned", gap_of_pairs(apart), CHANGED_GAP_DB)

    def _gap_to_fresh(self, pictures: Sequence[tuple[Input, Integers, Integers]], count: int) -> None:
        """What restoring gains on submitted inputs, and on other pictures with the track's damage."""
        known = []
        for item, first, pixels in pictures:
            truth = self._truth(item, first)
            plain = self._plain(pixels)
            if truth is not None and plain.shape == truth.shape and plain.dtype == truth.dtype:
                known.append(psnr_db(first, truth) - psnr_db(plain, truth))
        side = min(min(first.shape[:2]) for _, first, _ in pictures)
        gains = []
        for one in fresh_inputs(self.track, count if known else 0, side, self.rng.randrange(2**31), self._scratch):
            _, made = self._restore(Input(one.lq, one.lq.stem), None, None)
            given = None if self.track.inputs == "raw" else self._plain(decode_integers(one.lq, read_bytes(one.lq)))
            if made is not None and given is not None and made.shape == one.gt.shape:
                gains.append(psnr_db(made, one.gt) - psnr_db(given, one.gt))
        if known and gains:
            self._gap(
                "other pictures", gap_of_groups(known, gains), FRESH_GAP_DB if damage_is_known(self.track) else None
            )

    def _plain(self, pixels: Integers) -> Integers:
        """An input at the size of its result: what a method has to be better than."""
        if self.track.scale == 1 or pixels.ndim != 3:
            return pixels
        larger = resized(as_image(pixels), self.track.scale)
        return as_pixels(larger.clamp(0, 1), bits=8 * pixels.dtype.itemsize)

    def _gap(self, name: str, gap: Gap, most: float | None) -> None:
        self.gaps[name] = gap
        over = most is not None and gap.over(most)
        self.probes.append(Probe(f"gap to {name}", None if most is None or gap.low is None else not over, str(gap)))
        if over:
            self._add("E605", "", f"at most {most:g} dB better than {name}", str(gap))

    def _truth(self, item: Input, first: Integers) -> Integers | None:
        path = self._truths.get(item.name)
        try:
            truth = None if path is None else decode_integers(path, read_bytes(path))
        except UserError:
            return None
        return truth if truth is not None and truth.shape == first.shape and truth.dtype == first.dtype else None

    def _of(self, item: Input, pixels: Integers) -> Integers | None:
        return self._restore(item, self._changed(item, pixels), None)[1]

    def _changed(self, item: Input, pixels: Integers) -> Path:
        """A changed input beside what speaks for the real one."""
        facts = facts_text(item.path)
        suffix = ".npy" if item.path.suffix.lower() == ".npy" else ".png"
        path = self._scratch / f"input{suffix}"
        if suffix == ".npy":
            np.save(path, pixels, allow_pickle=False)
        else:
            path.write_bytes(encode_png(np.ascontiguousarray(pixels)))
        if facts is not None:
            path.with_suffix(".toml").write_bytes(facts)
        return path

    def _judge(self, name: str, code: str, item: Input, passed: bool, expected: str, found: str = "") -> bool:
        if not passed:
            self._add(code, f"{item.name}.png", expected, found or "another one")
        self.probes.append(Probe(name, passed, found or ("as it should" if passed else "not so")))
        return passed

    def _add(self, code: str, file: str, expected: str, found: str) -> None:
        self.findings.append(Finding(code, file, expected, found))


def _changeable(path: Path) -> Integers | None:
    """The samples of an input as they are stored, if it can be written again with a change."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        samples = np.load(path, allow_pickle=False)
        return samples if samples.dtype.kind == "u" else None
    if suffix == ".png" and facts_file(path) is not None:
        import cv2

        mosaic = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        return mosaic.astype(np.uint16, copy=False) if mosaic is not None and mosaic.ndim == 2 else None
    try:
        return decode_integers(path, read_bytes(path))
    except UserError:
        return None


def _flip(pixels: Integers, rng: random.Random) -> Integers:
    """One bit, the lowest of one sample."""
    flipped = pixels.copy()
    flipped.reshape(-1)[rng.randrange(pixels.size)] ^= 1
    return flipped


def faster_of(pairs: Sequence[tuple[float, float]]) -> float:
    """The share of pairs (seconds of a repeated picture, of a new one) in which the first cannot have been computed again."""
    return statistics.fmean(again < FASTER * new and new - again > LEAST_SECONDS for again, new in pairs)
