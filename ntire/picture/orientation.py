"""Which way up a picture is: the orientation tag of EXIF data, or of XMP where there is no EXIF."""

import binascii
import re
import struct

ORIENTATION, SHORT, LONG = 0x0112, 3, 4
MOST_TAGS = 1000


def orientation_in(exif: bytes | None, xmp: bytes | str | None = None) -> int:
    """1 to 8 as EXIF counts them; 1, upright, where neither says anything that makes sense."""
    found = _of_exif(exif or b"")
    if found is None and xmp:
        text = xmp if isinstance(xmp, str) else xmp.decode("utf-8", "replace")
        stated = re.search(r'tiff:Orientation(?:="|>)([1-8])\b', text)
        found = int(stated[1]) if stated else None
    return found or 1


def exif_in_text(profile: str | bytes) -> bytes:
    """EXIF data as ImageMagick writes it into a PNG's text: a name, a length, and hex digits in lines."""
    text = profile.decode("latin-1") if isinstance(profile, bytes) else profile
    try:
        return bytes.fromhex("".join(text.split()[2:]))
    except (ValueError, binascii.Error):
        return b""


def _of_exif(exif: bytes) -> int | None:
    """The tag of the first directory; None where it is not there or not a number from 1 to 8."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, first)
        for at in range(first + 2, first + 2 + 12 * min(count, MOST_TAGS), 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, at)
            if tag == ORIENTATION and kind in (SHORT, LONG):
                (value,) = struct.unpack_from(f"{order}{'H' if kind == SHORT else 'I'}", tiff, at + 8)
                return value if 1 <= value <= 8 else None
    except struct.error:
        pass
    return None
