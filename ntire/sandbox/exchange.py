"""The one file at a time that a sandbox is shown, and copies that its user may read."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from ntire.files import open_regular


def copy_readable(source: Path, target: Path, below: Path | None = None, most: int | None = None) -> None:
    """A copy that everybody may read, whatever the rights of the original, made by the kernel.

    `below` as for `open_regular`; raises OSError for a file of more than `most` bytes, too.
    """
    with open_regular(source, below) as given, target.open("wb") as made:
        length = os.fstat(given.fileno()).st_size
        if most is not None and length > most:
            raise OSError(f"expected at most {most:,} bytes, found {length:,}")
        copied = 0
        while copied < length:
            sent = os.sendfile(made.fileno(), given.fileno(), copied, length - copied)
            if not sent:
                break
            copied += sent
    target.chmod(0o644)


class Exchange:
    """A folder of the parent's that is mounted read-only in a sandbox; a file lies in it only while it is asked about."""

    def __init__(self, scratch: Path) -> None:
        """`scratch` is a folder of this process, of which the sandbox's user may know the way."""
        scratch.chmod(0o755)
        self.folder = scratch / "exchange"
        self.folder.mkdir(mode=0o755)

    @contextlib.contextmanager
    def showing(self, path: Path, beside: bytes | None = None, name: str | None = None) -> Iterator[str]:
        """Show a copy of `path` under `name`, by default one that says nothing, and the TOML that belongs to it."""
        shown = self.folder / (name or f"{secrets.token_hex(8)}{path.suffix.lower()}")
        facts = shown.with_suffix(".toml")
        try:
            copy_readable(path, shown)
            if beside is not None:
                facts.write_bytes(beside)
                facts.chmod(0o644)
            yield shown.name
        finally:
            shown.unlink(missing_ok=True)
            facts.unlink(missing_ok=True)
