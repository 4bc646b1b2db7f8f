"""A competition bundle: the zip that an organiser uploads."""

import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from PIL import Image, ImageDraw, ImageFont

from ntire.codabench.competition import Competition, competition_of
from ntire.codabench.pages import pages_of
from ntire.codabench.programs import RULES, ingestion_program, scoring_program
from ntire.files import new_file
from ntire.picture.folder import passed_over
from ntire.scoring.track import Track

LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""For every member: the same files make the same bundle on any day."""
LOGO = "logo.png"
Content = bytes | Path
KIT = """# Starting kit: {title}

- `track.toml`: the rules, as the grader has them.
- `sample_submission.zip`: an upload that is accepted and scored: the inputs themselves. `track.toml` names this one, to the
  byte, as the baseline; of anybody else's results that equal their inputs `check` says E311, and they are refused.

Your results, as you would upload them, seen as the grader sees them, with the inputs in `inputs/`:

    ntire check mine.zip --track track.toml --lq inputs/

The best start for code of your own: `ntire new-method my-method`, then my-method/README.md.
"""


@dataclass(frozen=True)
class Materials:
    """What a bundle is made of, beside the rules."""

    gt: Path | None
    lq: Path | None
    landmarks: Path | None = None
    sample: Path | None = None
    """A zip that the scoring program accepts."""
    logo: bytes | None = None
    """A PNG; one with the title on it is drawn where there is none."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    """The metrics' weights that are to travel with the reference data, by their places below `weights/`."""


def write_bundle(track: Track, how: Competition, given: Materials, out: Path) -> list[str]:
    """Write the bundle to `out`; returns the names of its files. Raises OSError."""
    rules = {RULES: track_toml(track).encode()}
    reference: dict[str, Content] = {
        **below("gt", given.gt),
        **below("lq", given.lq),
        **({"landmarks.csv": given.landmarks} if given.landmarks else {}),
        **{f"weights/{place}": path for place, path in given.weights.items()},
    }
    zips: dict[str, Mapping[str, Content]] = {
        "scoring_program.zip": {**scoring_program(), **rules},
        "reference_data.zip": reference,
        "starting_kit.zip": {
            "README.md": KIT.format(title=how.title or track.title).encode(),
            **rules,
            **({"sample_submission.zip": given.sample} if given.sample else {}),
        },
        **({"public_data.zip": below("inputs", given.lq)} if given.lq else {}),
    }
    if how.code:
        zips["ingestion_program.zip"] = {**ingestion_program(), **rules}
        zips["input_data.zip"] = below("", given.lq)
    elif given.sample:
        # Where code is handed in, pictures are no solution.
        zips["sample_submission.zip"] = {}
    pages = {title: f"pages/{title.lower()}.md" for title in pages_of(track, how)}
    files: dict[str, Content] = {pages[title]: text.encode() for title, text in pages_of(track, how).items()}
    files[LOGO] = given.logo or drawn_logo(how.title or track.title)
    competition = competition_of(track, how, pages, list(zips), LOGO)
    files["competition.yaml"] = yaml.safe_dump(competition, sort_keys=False, allow_unicode=True, width=120).encode()
    with new_file(out) as made, zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as bundle:
        for name, content in files.items():
            _put(bundle, name, content)
        for name, members in zips.items():
            if name == "sample_submission.zip" and given.sample:
                _put(bundle, name, given.sample)
                continue
            with bundle.open(_info(name), "w", force_zip64=True) as part, zipfile.ZipFile(part, "w") as inner:
                for member, content in members.items():
                    _put(inner, member, content)
        return bundle.namelist()


def zip_of(content: Mapping[str, Content], out: Path) -> Path:
    """A zip of files, and of folders with all that is in them."""
    with new_file(out) as made, zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as packed:
        for name, one in content.items():
            members = below(name, one) if isinstance(one, Path) and one.is_dir() else {name: one}
            for member, part in members.items():
                _put(packed, member, part)
    return out


def below(folder: str, path: Path | None) -> dict[str, Content]:
    """All files of a folder but what systems leave behind, by where they go in a zip."""
    if path is None:
        return {}
    found = sorted(one for one in path.rglob("*") if one.is_file())
    names = {one: one.relative_to(path).as_posix() for one in found}
    return {
        f"{folder}/{name}".lstrip("/"): one for one, name in names.items() if not any(map(passed_over, name.split("/")))
    }


def track_toml(track: Track) -> str:
    """The rules as a TOML, whole: those of a track that ships may change with ntire."""
    import tomli_w

    rules = track.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return tomli_w.dumps({**rules, "name": track.name, "title": track.title, "inputs": track.inputs})


def drawn_logo(title: str) -> bytes:
    """A plain logo with a title on it."""
    picture = Image.new("RGB", (480, 270), (24, 38, 66))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=30)
    for number, line in enumerate(_lines(title.split(), 24)[:5]):
        draw.text((30, 40 + 40 * number), line, fill=(255, 255, 255), font=font)
    made = io.BytesIO()
    picture.save(made, "PNG")
    return made.getvalue()


def logo_of(path: Path) -> bytes:
    """A picture as a PNG; raises OSError for what is none."""
    made = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(made, "PNG")
    return made.getvalue()


def _lines(words: Iterable[str], width: int) -> list[str]:
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, LONG_AGO)
    info.create_system, info.external_attr = 3, 0o100644 << 16
    return info


def _put(into: zipfile.ZipFile, name: str, content: Content) -> None:
    if isinstance(content, bytes):
        into.writestr(_info(name), content)
        return
    with content.open("rb") as source, into.open(_info(name), "w", force_zip64=True) as member:
        while block := source.read(1 << 20):
            member.write(block)
