"""Copy: the input itself, as a baseline."""

from ntire.teams.parts.baseline import InputItself


class Copy(InputItself):
    """Changes nothing."""

    track = "srgb"
    cite = "raim2025"
