"""Data sets that tracks are played on, read from one TOML each: who publishes it, how it lies on disk, how many pictures."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ntire import UserError
from ntire.files import read_toml
from ntire.scoring.layout import Layout
from ntire.text import meant

DATA_SETS = Path(str(files("ntire.scoring"))) / "datasets"


class DataSet(BaseModel):
    """A published set of pictures with their truth."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    images: Annotated[int, Field(gt=0)]
    """Of each subset that it serves."""
    homepage: Annotated[str, Field(pattern=r"^https?://")]
    licence: str
    """In the words of its authors, or "not stated"."""
    size_mb: Annotated[float, Field(gt=0)] | None = None
    """Of what is to be fetched."""
    unconfirmed: str = ""
    """Which of these facts nobody has held against the data set itself or its page."""
    layouts: Annotated[tuple[Layout, ...], Field(min_length=1)]
    """The ways in which it is found on disk; the first is the one in which it is published."""

    def where(self) -> str:
        """Where it is to be had, and on which terms."""
        size = f", {self.size_mb / 1000:.3g} GB" if self.size_mb else ""
        return f"{self.homepage} (licence: {self.licence}{size})"


@cache
def data_set(name: str) -> DataSet:
    """One that ships, by its name. Raises UserError that lists near ones."""
    path = DATA_SETS / f"{name}.toml"
    if not path.is_file():
        known = sorted(one.stem for one in DATA_SETS.glob("*.toml"))
        raise UserError(f"unknown data set: {name!r}. {meant(name, known)}")
    return read_toml(path, DataSet)
