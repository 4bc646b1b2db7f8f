"""Fustar-fsr, invalid in the NTIRE 2025 face challenge: nothing is public but its row of the report's table 1."""

from ntire.method import Unpublished

FUSTAR_FSR = Unpublished(
    team="Fustar-fsr",
    track="face",
    cite="face2025",
    note="neither a program, nor weights, nor a description is public, only its row of the report's table 1 (total 4.0814, "
    "229 failed images). Its images can be scored: `ntire score FOLDER --track face-2025`.",
)
