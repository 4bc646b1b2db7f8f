"""Which files are read, by their suffixes, and what the others are: a folder is told apart by names before any is opened."""

from collections.abc import Collection, Iterable
from importlib.util import find_spec
from typing import Literal


def _all(*lines: str) -> frozenset[str]:
    return frozenset(suffix for line in lines for suffix in line.split())


PICTURES = _all(".avif .bmp .dib .heic .heif .hif .jfif .jpe .jpeg .jpg .jxl .mpo .npy .png .tif .tiff .webp")
HEIC = frozenset({".heic", ".heif", ".hif"})
NEEDS_PHOTOS = "HEIC needs the package pillow-heif: pip install 'ntire[photos]'"
VENDOR_RAW = _all(
    ".3fr .ari .arw .bay .bmq .cap .cine .cr2 .cr3 .crw .cs1 .dc2 .dcr .dng .drf .dsc .dxo .eip .erf .fff .gpr .iiq .k25",
    ".kc2 .kdc .mdc .mef .mfw .mos .mrw .nef .nrw .obm .orf .ori .pef .ptx .pxn .qtk .r3d .raf .raw .rdc .rw2 .rwl .rwz",
    ".sr2 .srf .srw .sti .x3f",
)
"""All that LibRaw knows, as far as a name can say so."""
RAW = VENDOR_RAW | {".npy", ".npz", ".png"}
RAW_FACTS = frozenset({".toml"})
"""What stands beside raw frames and speaks for them."""
OTHER_KINDS = {
    "a GIF": _all(".gif"),
    "a JPEG 2000 image": _all(".jp2 .j2k .jpf .jpx .j2c .jpm"),
    "a video": _all(".mp4 .mov .avi .mkv .webm .m4v"),
    "an archive, which is to be unpacked first": _all(".zip .tar .gz .tgz .7z .rar .bz2 .xz .zst"),
    "a document or drawing": _all(".pdf .svg .ai .eps .psd .psb .xcf .kra .afphoto .docx .pptx"),
    "an HDR image": _all(".exr .hdr .pfm .rgbe"),
    "a picture in a format that is not read": _all(
        ".ppm .pgm .pbm .pnm .tga .ico .pcx .dds .jls .jxr .wdp .bpg .qoi .fits .dcm .sgi"
    ),
    "a file of arrays": _all(".mat .npz .h5 .hdf5"),
}
"""What a file is by its suffix, where that is no picture of ours."""


def why_not(suffix: str, suffixes: Collection[str] = PICTURES) -> str | None:
    """Why a file of that suffix, in small letters, is not read where those of `suffixes` are; None if it is."""
    if suffix in suffixes:
        return NEEDS_PHOTOS if suffix in HEIC and find_spec("pillow_heif") is None else None
    if suffix in PICTURES:
        return "a finished picture, not a raw frame"
    if suffix in VENDOR_RAW:
        return "a raw frame, which --track raw takes"
    kind = next((words for words, known in OTHER_KINDS.items() if suffix in known), None)
    return f"{kind}; save it as PNG to have it read" if kind else "no picture by its name"


Result = Literal["png8", "png16", "tiff8", "tiff16", "tiff-float", "npy", "jpeg8", "webp8", "bmp8"]
RESULTS: dict[Result, str] = {
    "png8": "an 8-bit RGB PNG",
    "png16": "a 16-bit RGB PNG",
    "tiff8": "an 8-bit RGB TIFF",
    "tiff16": "a 16-bit RGB TIFF",
    "tiff-float": "an RGB TIFF of floats",
    "npy": "a NumPy array (H, W, 3)",
    "jpeg8": "an RGB JPEG",
    "webp8": "an RGB WebP",
    "bmp8": "an 8-bit RGB BMP",
}
"""What a track may take for a result, in words."""


def in_words(results: Iterable[Result]) -> str:
    """The formats of a track's `results`."""
    return " or ".join(RESULTS[result] for result in results)
