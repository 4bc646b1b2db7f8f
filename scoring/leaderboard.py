"""Rows to one ranked line per submission, and the files that hold them."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ntire.files import write_atomically
from scoring.metrics import METRICS
from scoring.score import Row
from scoring.track import Track


@dataclass(frozen=True)
class Line:
    """One submission on the leaderboard."""

    entry: str
    team: str
    track: Track
    means: Mapping[str, float]
    """Mean of each metric over all expected images; absent where an image has no value."""
    total: float | None
    images: int
    """Expected."""
    scored: int
    """With every metric."""
    problem: str = ""
    """Why it is not valid; empty if it is."""
    rank: int | None = None
    """None for a submission that is not valid or has no total."""
    notes: tuple[str, ...] = field(default=())
    versions: Mapping[str, str] = field(default_factory=dict)


def line_of(
    entry: str, team: str, track: Track, rows: Sequence[Row], metrics: Sequence[str], versions: Mapping[str, str]
) -> Line:
    """Average the rows of one submission.

    A mean exists only where every expected image has a value: a submission with a gap is listed with its reason, not
    ranked.
    """
    expected = [row for row in rows if row.status != "unexpected"]
    bad = [row for row in expected if row.status != "ok"]
    unexpected = len(rows) - len(expected)
    means = {
        metric: math.fsum(row.values[metric] for row in expected) / len(expected)
        for metric in metrics
        if all(metric in row.values for row in expected)
    }
    total = track.total(means) if set(metrics) == set(track.metrics) else None
    same = sum(1 for row in expected if math.isinf(row.values.get("psnr", 0.0)))
    notes = [f"{unexpected} unexpected image(s), not counted"] if unexpected else []
    notes += [f"{same} image(s) equal to the ground truth"] if same else []
    return Line(
        entry,
        team,
        track,
        means,
        total,
        images=len(expected),
        scored=len(expected) - len(bad),
        problem=_in_short(bad),
        notes=tuple(notes),
        versions=versions,
    )


def ranked(lines: Sequence[Line]) -> list[Line]:
    """Lines by track, then rank; equal totals (after the tie-break) share a rank; unranked ones follow by name."""
    from dataclasses import replace

    ordered: list[Line] = []
    for name in sorted({line.track.name for line in lines}):
        of_track = [line for line in lines if line.track.name == name]
        able = sorted(
            (line for line in of_track if line.total is not None and not line.problem),
            key=lambda line: (*_order(line), line.entry),
        )
        for place, line in enumerate(able):
            tied = place > 0 and _order(line) == _order(able[place - 1])
            before = ordered[-1].rank if tied else place + 1
            ordered.append(replace(line, rank=before))
        ordered += sorted((line for line in of_track if line not in able), key=lambda line: line.entry)
    return ordered


def write_scores(path: Path, rows: Sequence[Row], metrics: Sequence[str]) -> None:
    """Write `scores.csv`: image, subset, status, the metrics unrounded, problem."""
    table = [
        [row.image, row.subset, row.status, *(_number(row.values.get(metric)) for metric in metrics), row.problem]
        for row in rows
    ]
    write_atomically(path, _csv(["image", "subset", "status", *metrics, "problem"], table))


def write_leaderboard(folder: Path, lines: Sequence[Line]) -> None:
    """Write `leaderboard.csv`, `.md` and `.json` for lines that are already ranked."""
    metrics = _metrics(lines)
    columns = ["rank", "entry", "team", "track", "valid", "total", *metrics]
    columns += ["images", "scored", "problem", "notes", "versions"]
    table = [
        [
            "N/A" if line.rank is None else str(line.rank),
            line.entry,
            line.team,
            line.track.name,
            "no" if line.problem else "yes",
            _number(line.total),
            *(_number(line.means.get(metric)) for metric in metrics),
            str(line.images),
            str(line.scored),
            line.problem,
            "; ".join(line.notes),
            " ".join(f"{name}={version}" for name, version in line.versions.items()),
        ]
        for line in lines
    ]
    write_atomically(folder / "leaderboard.csv", _csv(columns, table))
    write_atomically(folder / "leaderboard.md", markdown(lines))
    write_atomically(folder / "leaderboard.json", json.dumps(as_json(lines), indent=2, ensure_ascii=False) + "\n")


def cells(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Header and rounded cells of the table that people read."""
    metrics = _metrics(lines)
    arrows = [f"{metric} {'↑' if METRICS[metric].higher_is_better else '↓'}" for metric in metrics]
    header = ["rank", "entry", "team", "track", "total", *arrows, "images", "remarks"]
    table = [
        [
            "N/A" if line.rank is None else str(line.rank),
            line.entry,
            line.team,
            line.track.name,
            _rounded(line.total, line.track.decimals),
            *(_rounded(line.means.get(metric), line.track.decimals) for metric in metrics),
            f"{line.scored}/{line.images}",
            "; ".join(filter(None, [line.problem, *line.notes])),
        ]
        for line in lines
    ]
    return header, table


def markdown(lines: Sequence[Line]) -> str:
    """The table as Markdown; names cannot break out of their cell."""
    header, table = cells(lines)
    shown = [header, ["---"] * len(header), *([_plain(cell) for cell in row] for row in table)]
    return "".join(f"| {' | '.join(row)} |\n" for row in shown)


def as_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """One object a line; an infinite value is the string "inf", as JSON has no number for it."""
    return [
        {
            "rank": line.rank,
            "entry": line.entry,
            "team": line.team,
            "track": line.track.name,
            "valid": not line.problem,
            "total": _finite(line.total),
            "metrics": {name: _finite(mean) for name, mean in line.means.items()},
            "images": line.images,
            "scored": line.scored,
            "problem": line.problem,
            "notes": list(line.notes),
            "versions": dict(line.versions),
        }
        for line in lines
    ]


def _order(line: Line) -> tuple[float, ...]:
    """Smaller is better: the total, then the tie-break metrics, each in its own direction."""
    total = -line.total if line.total is not None else math.inf
    ties = (
        -line.means[name] if METRICS[name].higher_is_better else line.means[name]
        for name in line.track.tie_break
        if name in line.means
    )
    return (total, *ties)


def _metrics(lines: Sequence[Line]) -> list[str]:
    """Columns: every metric that some line has, in the order of the tracks' rules."""
    wanted = dict.fromkeys(name for line in lines for name in line.track.metrics)
    return [name for name in wanted if any(name in line.means for line in lines)]


def _in_short(bad: Sequence[Row]) -> str:
    counts: dict[str, list[str]] = {}
    for row in bad:
        counts.setdefault(row.status, []).append(row.image)
    return "; ".join(
        f"{len(images)} {status} ({', '.join(images[:3])}{', ...' if len(images) > 3 else ''})"
        for status, images in counts.items()
    )


def _number(value: float | None) -> str:
    return "" if value is None else format(value, ".10g")


def _rounded(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _finite(value: float | None) -> float | str | None:
    return str(value) if value is not None and math.isinf(value) else value


def _plain(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _csv(header: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    """UTF-8 CSV; text that a spreadsheet would take for a formula gets an apostrophe in front, numbers stay numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_safe(cell) for cell in row] for row in table)
    return text.getvalue()


def _safe(cell: str) -> str:
    try:
        float(cell)
    except ValueError:
        return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
    return cell
