"""ntire: run, check, score and rank what teams submit to the NTIRE image-restoration challenges."""

__version__ = "0.1.0"


class UserError(Exception):
    """A mistake that the user can mend; printed without a traceback.

    The message names the thing, what was expected, what was found and what to do. `exit_code` is what the command
    returns: 2 for wrong usage, 3 where something of ours or of the machine is missing or broken.
    """

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code
