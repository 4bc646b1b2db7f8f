"""Copy: the input enlarged by a formula, as a baseline, and as a known answer for everything that has a scale.

Bicubic as MATLAB computes it is what the challenges of super-resolution call "bicubic"; Lanczos is the sharper of the usual
formulas.
"""

from ntire.teams.parts.baseline import Enlarged


class Copy(Enlarged):
    """Bicubic, x4."""

    track = "esr"
    cite = "ren2025esr"


class CopyX2(Copy):
    """Bicubic, x2."""

    variant = "x2"
    scale = 2


class CopyX3(Copy):
    """Bicubic, x3."""

    variant = "x3"
    scale = 3


class CopyLanczos(Copy):
    """Lanczos with three lobes, x4."""

    variant = "lanczos"
    kernel = "lanczos3"
    halo = 3
