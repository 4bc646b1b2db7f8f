"""Pictures of entries and what they are compared with: read once, known by their hash, decoded when somebody looks."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from ntire.entry.manifest import Submission
from ntire.files import sha256_of
from ntire.picture.header import result_of
from ntire.picture.image import Header, Pixels, UnreadableImage, cut_to_multiple, decode, header_of, read_bytes
from ntire.picture.scale import expected_in_words, found_in_words, result_size
from ntire.picture.suffixes import Result, in_words
from ntire.scoring.identity import Face
from ntire.scoring.instruments import View
from ntire.scoring.metrics import Metric
from ntire.scoring.pixels import Failure, MetricError, levels
from ntire.scoring.references import Expected, pictures_below
from ntire.scoring.track import Track

CHUNK, CHUNK_BYTES = 16, 256 << 20
"""Images, and bytes of their pixels, references and one entry's, that are in memory at once; one image at least."""

Status = Failure | Literal["ok", "missing", "unexpected", "duplicate", "unreadable", "wrong format", "wrong size"]
Item = TypeVar("Item")


@dataclass
class ScoredPicture:
    """A picture that was read, known by its hash, and its pixels once somebody has asked for them."""

    path: Path
    sha256: str
    decode: Callable[[], Pixels]
    """Raises UnreadableImage."""
    landmarks: Face | None = None
    pixels: Pixels | None = None
    multiple: int = 1
    """Cut to sides of a multiple of it before anything else."""
    corner: tuple[int, int] | None = None
    """Height and width of the part at the top left that is the picture, where not all of it is."""
    examined: bool = True
    """Whether its pixels are known to be those of a picture that is scored."""

    def open(self) -> Pixels:
        """Decode it, once. Raises UnreadableImage."""
        if self.pixels is None:
            height, width = self.corner or (None, None)
            self.pixels = cut_to_multiple(levels(self.decode())[:height, :width], self.multiple)
        return self.pixels

    def view(self, border: int, reference: "ScoredPicture | None" = None) -> View:
        """What a metric sees; MetricError if nothing is left inside the border."""
        return View(_inside(self, border), _inside(reference, border) if reference else None, self.landmarks)


@dataclass(frozen=True)
class RefusedPicture:
    """Why a submitted picture is not scored."""

    status: Status
    problem: str
    code: str = ""


@dataclass(frozen=True)
class AskedFor:
    """What a submitted picture has to be."""

    size: tuple[int, int]
    """Height and width."""
    results: Sequence[Result]
    """Formats that the track takes."""
    lq: ScoredPicture | None = None
    """The input that it is made from, where that is known."""
    scale: int = 1
    """How many times as large as its input it has to be."""

    def refuse(self, header: Header) -> RefusedPicture | None:
        """What its header says that it should not."""
        if header.mode != "RGB" or result_of(header) not in self.results:
            wanted = in_words(self.results)
            found = f"{header.format} {header.mode} of {'floats' if header.floating else f'{header.bits} bits'}"
            return RefusedPicture("wrong format", f"expected {wanted}, found {found}", "E305")
        if (header.height, header.width) != self.size:
            lq = self.size[0] // self.scale, self.size[1] // self.scale
            expected = expected_in_words(lq, self.scale).replace("as its input", "as in its reference")
            found = found_in_words((header.height, header.width), lq, self.scale)
            return RefusedPicture("wrong size", f"expected {expected}, found {found}", "E304")
        return None


class Source(Protocol):
    """Who reads the pictures of entries."""

    def pictures(self, submission: Submission) -> dict[str, Path]:
        """By their names relative to `images/`, without suffix."""

    def open(self, submission: Submission, path: Path, asked: AskedFor) -> ScoredPicture | RefusedPicture:
        """One picture, if it is what was asked for."""


class OwnPictures:
    """Pictures that ntire itself has written, or that the user trusts: read and decoded in this process."""

    def pictures(self, submission: Submission) -> dict[str, Path]:
        """See `Source`."""
        return pictures_below(submission.images)

    def open(self, submission: Submission, path: Path, asked: AskedFor) -> ScoredPicture | RefusedPicture:
        """See `Source`."""
        try:
            picture, header = _opened(path)
        except UnreadableImage as error:
            return RefusedPicture("unreadable", str(error), "E307")
        return asked.refuse(header) or picture


@dataclass(frozen=True)
class OpenedReferences:
    """What one expected image is compared with."""

    gt: ScoredPicture | None
    lq: ScoredPicture | None
    asked: AskedFor
    bytes: int
    """Of the pixels, and of as many of an entry."""

    @property
    def pictures(self) -> tuple[ScoredPicture, ...]:
        """Those that are there."""
        return tuple(one for one in (self.gt, self.lq) if one is not None)

    def of(self, metric: Metric) -> ScoredPicture | None:
        """The one that a metric compares with."""
        return {"gt": self.gt, "lq": self.lq, "nothing": None}[metric.against]


def open_references(track: Track, one: Expected) -> OpenedReferences:
    """Read them; raises UnreadableImage."""
    gt, lq = (_opened(path, one.landmarks, one.multiple) if path else None for path in (one.gt, one.lq))
    sized = gt or lq
    if sized is None:
        raise ValueError(f"{one.name} has no reference")
    # Where the track adds the noise itself, the clean picture is what an entry must not be equal to.
    given = lq or (gt if track.noise_of(one.subset) else None)
    if track.scale > 1:
        size = result_size(track.scale, header_size(lq), header_size(gt))
        if gt is not None and header_size(gt) != size:
            gt[0].corner = size
    else:
        height, width = (side - side % one.multiple for side in (sized[1].height, sized[1].width))
        size = height, width
    asked = AskedFor(size, track.results, given[0] if given else None, track.scale)
    held = [(one[1].height * one[1].width, one[1].bits) for one in (gt, lq) if one]
    held.append((size[0] * size[1], sized[1].bits))
    pixels = sum(area * (3 if bits <= 8 else 12) for area, bits in held)
    return OpenedReferences(gt[0] if gt else None, lq[0] if lq else None, asked, pixels)


def groups(
    track: Track, expected: Sequence[Expected], pool: ThreadPoolExecutor
) -> Iterator[tuple[list[Expected], list[OpenedReferences]]]:
    """Images with their references, opened and not yet decoded, as many as may be in memory at once."""
    for chunk in chunks(expected, CHUNK):
        waiting = deque(zip(chunk, pool.map(partial(open_references, track), chunk), strict=True))
        while waiting:
            group, size = [waiting[0][0]], waiting[0][1].bytes
            references = [waiting.popleft()[1]]
            while waiting and size + waiting[0][1].bytes <= CHUNK_BYTES:
                one, reference = waiting.popleft()
                group.append(one)
                references.append(reference)
                size += reference.bytes
            yield group, references


def header_size(opened: tuple[ScoredPicture, Header] | None) -> tuple[int, int] | None:
    """Height and width of a reference, if there is one."""
    return (opened[1].height, opened[1].width) if opened else None


def _opened(path: Path, landmarks: Face | None = None, multiple: int = 1) -> tuple[ScoredPicture, Header]:
    data = read_bytes(path)
    found = ScoredPicture(path, sha256_of(data), partial(decode, path, data), landmarks, multiple=multiple)
    return found, header_of(path, data)


def _inside(image: ScoredPicture, border: int) -> Pixels:
    pixels = image.pixels
    if pixels is None:
        raise ValueError(f"{image.path} is not decoded")
    if min(pixels.shape[:2]) <= 2 * border:
        raise MetricError(f"nothing is left of {pixels.shape[0]} x {pixels.shape[1]} inside a border of {border}")
    return pixels[border:-border, border:-border] if border else pixels


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """So many at once, the last time perhaps fewer."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
