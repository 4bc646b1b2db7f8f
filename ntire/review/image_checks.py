"""One submitted picture, looked at before it is scored: the header first, pixels only if they are as many as expected.

Nothing here trusts the file: it is opened without following a link, of limited length, and decoded only if its own header
asks for exactly the memory that the input's size justifies.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ntire.entry.findings import Finding
from ntire.files import open_regular, read_regular
from ntire.picture.header import result_of
from ntire.picture.image import Pixels, UnreadableImage, decode, header_of, read_bytes
from ntire.picture.scale import enlarged, expected_in_words, found_in_words
from ntire.picture.suffixes import Result, in_words

MOST_PIXELS = 2**26
"""Of a picture whose input is not known: 8K has half as many."""
MOST_BYTES = 2**28
"""Of such a picture's file."""
MOST_PER_PIXEL = 16
"""Bytes of a pixel's three floats, and some more."""
SPARE_BYTES = 1 << 20
"""That a file may be longer than its pixels uncompressed: metadata, and noise that does not compress."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"
KINDS = {
    b"\xff\xd8\xff": "a JPEG",
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"RIFF": "a WebP",
    b"PK\x03\x04": "a zip",
    b"%PDF": "a PDF",
}
COLOURS = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGB with alpha"}
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".jp2", ".avif", ".exr", ".npy"}
)
"""Names that say: this is meant to be a picture."""


@dataclass(frozen=True)
class Wanted:
    """A submitted picture and the input that it is for, where that is known."""

    path: Path
    name: str
    """Relative to the entry."""
    lq: Path | None = None
    """A picture; of a raw frame, only the size is known here."""
    size: tuple[int, int] | None = None
    """Height and width of the input, where it is not to be read."""
    scale: int = 1
    """How many times as large as its input it has to be."""
    results: tuple[Result, ...] = ("png8",)
    """Formats that the track takes, as in its TOML: "png8", "tiff16", "npy", ..."""
    root: Path | None = None
    """The entry's folder, below which no link is followed."""

    @property
    def other_formats(self) -> bool:
        """Whether the track takes other files than PNGs."""
        return not all(result.startswith("png") for result in self.results)

    @property
    def bytes_per_pixel(self) -> int:
        """That its file may have, beside `SPARE_BYTES`."""
        return MOST_PER_PIXEL if self.other_formats else 8 if "png16" in self.results else 4


@dataclass(frozen=True)
class SeenImage:
    """What was found in a picture; without a digest if its pixels were not decoded."""

    name: str
    findings: tuple[Finding, ...]
    size: tuple[int, int] | None = None
    """Height and width."""
    digest: str | None = None
    """Of size and pixels: equal pictures have equal ones, however they are stored."""
    pixels: Pixels | None = field(default=None, compare=False, repr=False)
    """Where they were asked for, and nothing stands in their way."""


class BadImage(Exception):
    """Nothing more can be said of a picture than this."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.found)
        self.finding = finding


def look_at(wanted: Wanted, *, keep: bool = False) -> SeenImage:
    """Everything that is wrong with one picture; `keep` gives its pixels instead of their digest.

    Raises UserError if the input that it is for cannot be read.
    """
    given, size = input_of(wanted)
    try:
        data = bytes_of(wanted, size, wanted.bytes_per_pixel)
        if wanted.other_formats and not data.startswith(SIGNATURE):
            found, wrong = _other_format(wanted, data, size)
        else:
            found = _size(wanted, data)
            wrong = _as_expected(wanted, data, found, size)
        if wrong:
            return SeenImage(wanted.name, tuple(wrong), found)
        pixels = _pixels(wanted, data)
    except BadImage as bad:
        return SeenImage(wanted.name, (bad.finding,))
    wrong = _dishonest(wanted, data, pixels, given)
    if keep:
        return SeenImage(wanted.name, tuple(wrong), found, pixels=pixels)
    return SeenImage(wanted.name, tuple(wrong), found, digest_of(pixels))


def digest_of(pixels: Pixels) -> str:
    """The sha256 of a picture's size, depth and pixels."""
    hashed = hashlib.sha256(repr((pixels.shape, pixels.dtype.str)).encode())
    hashed.update(np.ascontiguousarray(pixels).data)
    return hashed.hexdigest()


def digest_at(path: Path, sizes: set[tuple[int, int]]) -> str | None:
    """The digest of a picture that has one of the sizes, whatever its name; None for any other file."""
    try:
        with open_regular(path) as file:
            if not is_picture(file.read(16)):
                return None
        data = read_regular(path, MOST_BYTES)
        header = header_of(path, data)
        if (header.height, header.width) not in sizes or header.frames > 1:
            return None
        return digest_of(decode(path, data))
    except (UnreadableImage, OSError):
        return None


def kind(data: bytes) -> str:
    """What a file is by its first bytes, in words."""
    if data.startswith(SIGNATURE):
        return "a PNG"
    for magic, words in KINDS.items():
        if data.startswith(magic):
            return words
    return f"a file that begins with {data[:8].hex(' ')}" if data else "an empty file"


def is_picture(head: bytes) -> bool:
    """Whether a file that begins so is in one of the formats that `ntire.picture.image` reads."""
    formats = (SIGNATURE, b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"RIFF")
    return head.startswith(formats)


def size_in(head: bytes) -> tuple[int, int] | None:
    """Height and width by the first 24 bytes of a PNG; None for other files."""
    if not head.startswith(SIGNATURE) or head[8:16] != b"\0\0\0\x0dIHDR" or len(head) < 24:
        return None
    width, height = struct.unpack(">II", head[16:24])
    return height, width


def input_of(wanted: Wanted) -> tuple[bytes | None, tuple[int, int] | None]:
    """The bytes of the input, if they are to be looked at, and the height and width that the result must have."""
    if wanted.lq is None:
        return None, enlarged(wanted.size, wanted.scale) if wanted.size else None
    data = read_bytes(wanted.lq)
    header = header_of(wanted.lq, data)
    return data, enlarged((header.height, header.width), wanted.scale)


def bytes_of(wanted: Wanted, size: tuple[int, int] | None, each: int = 4) -> bytes:
    """What the file holds, if it is a regular file of a length that its size justifies, `each` byte a pixel; raises
    BadImage.
    """
    most = each * size[0] * size[1] + SPARE_BYTES if size else MOST_BYTES
    try:
        length = wanted.path.lstat().st_size
        if length > most:
            raise BadImage(Finding("E309", wanted.name, f"at most {most:,} bytes", f"{length:,} bytes"))
        return read_regular(wanted.path, most, wanted.root)
    except OSError as error:
        raise BadImage(Finding("E307", wanted.name, "a file that can be read", error.strerror or str(error))) from None


def _size(wanted: Wanted, data: bytes) -> tuple[int, int]:
    """Height and width by the file's first chunk, before any library sees it."""
    if not data.startswith(SIGNATURE):
        raise BadImage(Finding("E306", wanted.name, "a PNG by its content", kind(data)))
    if len(data) < 33 or data[8:16] != b"\0\0\0\x0dIHDR":
        raise BadImage(
            Finding("E307", wanted.name, "a PNG that begins with its header", f"{len(data):,} bytes without one")
        )
    width, height = struct.unpack(">II", data[16:24])
    return height, width


def _as_expected(wanted: Wanted, data: bytes, found: tuple[int, int], size: tuple[int, int] | None) -> list[Finding]:
    """What its header says that it should not."""
    wrong = []
    if found[0] * found[1] > (max(MOST_PIXELS, size[0] * size[1]) if size else MOST_PIXELS):
        raise BadImage(
            Finding("E309", wanted.name, _by(size) if size else f"at most {MOST_PIXELS:,} pixels", _by(found))
        )
    depth, colour = data[24], data[25]
    if f"png{depth}" not in wanted.results or colour != 2:
        shown = f"{COLOURS.get(colour, f'colour type {colour}')} of {depth} bits"
        depths = [result.removeprefix("png") for result in wanted.results if result.startswith("png")]
        taken = f"RGB of {' or '.join(depths)} bits a sample" if depths else in_words(wanted.results)
        wrong.append(Finding("E305", wanted.name, taken, shown))
    try:
        header = header_of(wanted.path, data)
    except UnreadableImage as error:
        raise BadImage(_damaged(wanted, error)) from None
    if header.frames > 1:
        wrong.append(Finding("E308", wanted.name, "one picture", f"{header.frames} frames"))
    upright = header.height, header.width
    if size and upright != size:
        wrong.append(_wrong_size(wanted, upright, size))
    return wrong


def _other_format(wanted: Wanted, data: bytes, size: tuple[int, int] | None) -> tuple[tuple[int, int], list[Finding]]:
    """Height and width of a picture that is no PNG, and what its header says that it should not."""
    try:
        header = header_of(wanted.path, data)
    except UnreadableImage as error:
        raise BadImage(_damaged(wanted, error)) from None
    found = header.height, header.width
    if found[0] * found[1] > (max(MOST_PIXELS, size[0] * size[1]) if size else MOST_PIXELS):
        raise BadImage(
            Finding("E309", wanted.name, _by(size) if size else f"at most {MOST_PIXELS:,} pixels", _by(found))
        )
    wrong = []
    if header.mode != "RGB" or result_of(header) not in wanted.results:
        shown = f"{header.format} {header.mode} of {'floats' if header.floating else f'{header.bits} bits'}"
        wrong.append(Finding("E305", wanted.name, in_words(wanted.results), shown))
    if header.frames > 1:
        wrong.append(Finding("E308", wanted.name, "one picture", f"{header.frames} frames"))
    if size and found != size:
        wrong.append(_wrong_size(wanted, found, size))
    return found, wrong


def _wrong_size(wanted: Wanted, found: tuple[int, int], size: tuple[int, int]) -> Finding:
    lq = size[0] // wanted.scale, size[1] // wanted.scale
    return Finding("E304", wanted.name, expected_in_words(lq, wanted.scale), found_in_words(found, lq, wanted.scale))


def _pixels(wanted: Wanted, data: bytes) -> Pixels:
    broken = _broken_chunk(data) if data.startswith(SIGNATURE) else None
    if broken is not None:
        raise BadImage(Finding("E307", wanted.name, "a whole PNG", broken))
    try:
        return decode(wanted.path, data)
    except UnreadableImage as error:
        raise BadImage(_damaged(wanted, error)) from None


def _broken_chunk(data: bytes) -> str | None:
    """What is wrong with the chunks of a PNG, or None: a decoder is content once it has its rows."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name = data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            return f"chunk {name!r} with a wrong checksum"
        if name == b"eXIf" and data[at + 8 : at + 12] not in (b"II*\0", b"MM\0*"):
            return "EXIF data that is none"
        if name == b"IEND":
            return None
        at = end
    return f"an end after {len(data):,} bytes, inside a chunk"


def _dishonest(wanted: Wanted, data: bytes, pixels: Pixels, given: bytes | None) -> list[Finding]:
    """What cannot have come out of a restoration. An input of one colour excuses an output of one colour."""
    lq = decode(wanted.lq, given) if wanted.lq and given is not None else None
    if lq is not None and constant(lq):
        return []
    wrong = []
    if constant(pixels):
        colour = tuple(int(level) for level in pixels[0, 0])
        wrong.append(Finding("E310", wanted.name, "a picture", f"{_by(pixels.shape)} times the colour {colour}"))
    if lq is not None and given is not None and wanted.lq is not None:
        same = "the same bytes" if given == data else "the same pixels" if np.array_equal(lq, pixels) else ""
        if same:
            wrong.append(Finding("E311", wanted.name, "a restored picture", f"{same} as {wanted.lq.name}"))
    return wrong


def constant(pixels: Pixels) -> bool:
    """Whether all pixels are equal."""
    return bool((pixels[0] == pixels[0, 0]).all()) and bool((pixels == pixels[0, 0]).all())


def _damaged(wanted: Wanted, error: UnreadableImage) -> Finding:
    # The path of a scratch folder would mean nothing to the reader, who sees the name beside the message.
    return Finding("E307", wanted.name, "a whole PNG", str(error).removeprefix(f"{wanted.path}: "))


def _by(size: tuple[int, ...]) -> str:
    return f"{size[0]} x {size[1]}"
