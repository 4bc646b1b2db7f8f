"""How noisy pictures are handed to a network: declared apart, so that a track's rules are read without NumPy."""

from typing import Literal

NoiseProtocol = Literal["rounded", "float", "truncated"]
"""What becomes of noisy values before a network gets them: clipped and rounded to 8 bits, nothing, or clipped and cut off."""
