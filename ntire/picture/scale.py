"""How large a result is beside its input, and what is said where it is not."""

Size = tuple[int, int]
"""Height and width."""

MOST_SCALE = 16
"""More is no super-resolution, and would let an entry's pictures be of any size."""
SCALE_RULE = (
    "a result has exactly so many times the height and width of its input; a ground truth that is larger by less than one "
    "pixel of the input is cut at the right and at the bottom"
)


def enlarged(size: Size, scale: int) -> Size:
    """Height and width of the result of an input of that size."""
    return scale * size[0], scale * size[1]


def factor(found: Size, lq: Size) -> int | None:
    """How many times as large as its input a picture is; None for no whole number, or for two of them."""
    times = found[0] // lq[0]
    return times if times and enlarged(lq, times) == found else None


def expected_in_words(lq: Size, scale: int) -> str:
    """The size that a result must have, and why."""
    height, width = enlarged(lq, scale)
    return f"{height} x {width}" + (f", x{scale} of its input of {lq[0]} x {lq[1]}" if scale > 1 else " as its input")


def found_in_words(found: Size, lq: Size, scale: int) -> str:
    """The size of a result that has another."""
    shown = f"{found[0]} x {found[1]}"
    times = factor(found, lq)
    if scale == 1 and times is None:
        return shown
    return f"{shown}, which is x{times}" if times else f"{shown}, which is no multiple of the input"


def enlarges(lq: Size, gt: Size, scale: int) -> bool:
    """Whether a ground truth is so many times as large as its input, but for a rest of less than one pixel of it."""
    return all(0 <= found - wanted < scale for found, wanted in zip(gt, enlarged(lq, scale), strict=True))


def result_size(scale: int, lq: Size | None, gt: Size | None) -> Size:
    """The size of a result by its input, else by its ground truth, of which the rest at the right and at the bottom is cut."""
    if lq is not None:
        return enlarged(lq, scale)
    if gt is None:
        raise ValueError("neither an input nor a ground truth says how large the result is")
    return gt[0] - gt[0] % scale, gt[1] - gt[1] % scale
