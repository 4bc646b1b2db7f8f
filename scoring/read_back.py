"""Tables back to lines of a leaderboard: a paper's, a person's, or our own `scores.csv` and `leaderboard.csv`.

What is empty or says N/A has no value: its row is listed with the reason, not ranked. Rows of another track are left out,
and that is said.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from ntire import UserError
from ntire.entry.manifest import MANIFEST, Manifest, Submission
from ntire.entry.measured_files import figures_beside
from ntire.files import read_toml
from ntire.scoring.budgets import Name
from ntire.scoring.efficiency import EntryCost
from ntire.scoring.leaderboard import GateResult, Line, broken_rules, line_of, notes_at_gates, problems_of, wanted_costs
from ntire.scoring.metrics import METRICS
from ntire.scoring.opened import Status
from ntire.scoring.score import Row, Scored
from ntire.scoring.spreadsheet import Table, read_table
from ntire.scoring.tables import BROKEN, OF_SET
from ntire.scoring.track import PROTOCOLS, Track, published_rows
from ntire.text import meant

NOTHING = ("", "-", "--", "–", "—", "n/a", "na", "nan", "none")
"""What stands in a cell that has no value, in lower case."""
COUNTS = ("failed_images", "images", "scored")
ROUNDED = 1e-3
"""How far beyond its bounds a printed value may lie."""
Say = Callable[[str], None]

ENTRY = "entry.toml"
"""A copy of an entry's manifest beside its `scores.csv`, so that these can be ranked again."""


def lines_of(path: Path, track: Track, say: Say = lambda line: None) -> list[Line]:
    """The lines of a CSV file: one for a `scores.csv`, which has a row an image, else one for each row.

    Raises UserError for a file that is neither, or has nothing of the track.
    """
    table = read_table(path)
    return [_line_of_images(table, track)] if table.header[0] == "image" else _lines_of_teams(table, track, say)


def lines_of_all(paths: Sequence[Path], track: Track, say: Say = lambda line: None) -> list[Line]:
    """The lines of several files, as `lines_of` has them. Raises UserError, too, for tables of scores over other images."""
    lines: list[Line] = []
    first: tuple[Path, set[str]] | None = None
    for path in paths:
        own = lines_of(path, track, say)
        for images in (set(line.sample.images) for line in own if line.sample is not None and line.images):
            first = first or (path, images)
            if other := sorted(images ^ first[1]):
                some = f"{', '.join(other[:3])}{', ...' if len(other) > 3 else ''}"
                raise UserError(
                    f"{path}: expected scores of the {len(first[1])} images of {first[0]}, found {len(images)}, and only one "
                    f"of both has {some}. Score both entries against the same references."
                )
        lines += own
    return lines


def published_lines(track: Track, table: str = "", say: Say = lambda line: None) -> list[Line]:
    """What papers report on a track; with `table`, the rows of one table of them, such as "MIRAGE table 1".

    Where a paper's own average or total does not follow from its cells, a note says both. Raises UserError for a track
    without such rows and for a table that has none.
    """
    found = _column_of(read_table(published_rows(track)), track)
    origins = [row["source"].partition(", row ")[0] for _, row in found.rows]
    if table and table not in origins:
        raise UserError(f"no row of {table!r} is published for track {track.name}. {meant(table, origins)}")
    chosen = [one for one, origin in zip(found.rows, origins, strict=True) if table in ("", origin)]
    lines = _lines_of_teams(replace(found, rows=tuple(chosen)), track, say)
    teams = Counter(line.team for line in lines)
    return [
        replace(
            line,
            entry=row.get("entry") or (line.team if teams[line.team] == 1 else f"{line.team} [{row['source']}]"),
            notes=(*line.notes, row["source"], *_disagreements(line, row, found)),
        )
        for line, (_, row) in zip(lines, chosen, strict=True)
    ]


def _column_of(table: Table, track: Track) -> Table:
    """A table of subsets as that of one of them, for a track whose rows are a column of another's."""
    subset = track.published.partition("/")[2]
    if not subset:
        return table
    names = {name.partition("/")[0] for name in table.header if name.endswith(f"/{subset}")}
    rows = [(number, {**row, **{name: row[f"{name}/{subset}"] for name in names}}) for number, row in table.rows]
    return replace(table, header=(*table.header, *names), rows=tuple(rows))


def _disagreements(line: Line, row: Mapping[str, str], table: Table) -> list[str]:
    """Averages and totals that a paper prints and that its own cells do not give, by more than rounding explains."""
    ours = {name: line.means[name] for name, of in line.by_subset.items() if of and name in line.means}
    if line.total is not None and line.track.average == "images":
        ours["total"] = line.total
    told = []
    for name, value in ours.items():
        printed = row.get(name, "")
        if printed and abs(table.number(printed) - value) > 1.5 * 10.0 ** -len(printed.partition(".")[2]):
            told.append(f"the paper prints {name} {printed}, its cells give {value:.{len(printed.partition('.')[2])}f}")
    return told


def _lines_of_teams(table: Table, track: Track, say: Say) -> list[Line]:
    """Lines of a table with one row a team: `team`, perhaps `entry` and `track`, a column for each metric of the total, and
    the failed images where the track has a gate (`failed_images` or `<gate>_failed`).

    On tracks whose subsets count alike a column `<metric>/<subset>` for each cell, and perhaps `<metric>` for the average,
    which counts where cells are empty. Raises UserError that lists every missing column and every cell that is not a number.
    """
    needed = list(dict.fromkeys(term.metric for term in track.terms))
    if not needed and not track.costs:
        raise UserError(f"track {track.name} has no formula: a table of means cannot be ranked by it.")
    table = _in_our_words(table, track)
    rows = _of_track(table, track, say)
    by_subset = [f"{name}/{subset}" for name in track.known_metrics for subset in track.subsets]
    costs = {name: _columns_of(name) for name in wanted_costs(track)}
    if track.average == "subsets":
        table.require(["team"])
        absent: list[str] = [name for name, columns in costs.items() if not {*columns} & {*table.header}]
        absent += [
            f"{gate.metric}/{subset}"
            for gate in track.mean_gates
            for subset in gate.least
            if f"{gate.metric}/{subset}" not in table.header
        ]
        if absent:
            raise UserError(
                f"{table.path}: expected the columns {', '.join(absent)}, as the rules of track {track.name} need them; found "
                f"{', '.join(table.header)}."
            )
        if not any(column in table.header for column in (*by_subset, *needed)):
            raise UserError(
                f"{table.path}: expected the columns team and some of {', '.join((*by_subset, *needed))}; "
                f"found {', '.join(table.header)}."
            )
    else:
        own = [f"{gate.name}_failed" for gate in track.gates]
        ours = bool(own) and all(column in table.header for column in own)
        table.require(["team", *needed, *(["failed_images"] if own and not ours else [])])
    lines, problems = [], []
    for number, row in rows:
        figures = [column for columns in costs.values() for column in columns]
        cells, wrong = _numbers(
            table, row, [*track.known_metrics, *by_subset, *figures, *_failures(track), "images", "scored"]
        )
        wrong += [] if row.get("entry") or row["team"] else ["team: expected a name, found an empty cell"]
        problems += [f"line {number}: {one}" for one in wrong]
        lines.append(_line(row, cells, track))
    if problems:
        raise UserError("\n".join(f"{table.path}: {problem}" for problem in problems))
    return lines


def _columns_of(cost: str) -> tuple[str, str]:
    """Where a table has a cost: in our own by a name that no budget has, in others by its plain name."""
    return f"cost/{cost}", cost


def _in_our_words(table: Table, track: Track) -> Table:
    """The same table with its columns called as ours are; a table that names only entries has them as teams, too."""
    names = {
        theirs: ours for theirs, ours in track.columns.items() if theirs in table.header and ours not in table.header
    }
    header = [names.get(column, column) for column in table.header]
    as_team = "entry" in header and "team" not in header
    rows = []
    for number, row in table.rows:
        own = {names.get(column, column): cell for column, cell in row.items()}
        # Challenges number their entries: 00_SPAN is team SPAN's.
        rows.append((number, {**own, "team": re.sub(r"^\d+_(?=.)", "", own["entry"])} if as_team else own))
    return replace(table, header=(*header, *(["team"] if as_team else [])), rows=tuple(rows))


def _of_track(table: Table, track: Track, say: Say) -> list[tuple[int, Mapping[str, str]]]:
    """The rows that are for a track, all of them where the table does not say."""
    rows = [(number, row) for number, row in table.rows if row.get("track", "") in ("", track.name)]
    others = [row["track"] for _, row in table.rows if row.get("track", "") not in ("", track.name)]
    names = ", ".join(f"{name} ({others.count(name)})" for name in dict.fromkeys(others))
    if not rows:
        raise UserError(f"{table.path}: has no row for track {track.name}, only for {names}. Choose with --track.")
    if others:
        say(f"left out of {table.path}, as they are not for track {track.name}: {len(others)} row(s), of {names}")
    return rows


def _failures(track: Track) -> list[str]:
    return [*(f"{gate.name}_failed" for gate in track.gates), *(["failed_images"] if track.gates else [])]


def _numbers(table: Table, row: Mapping[str, str], columns: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """The numbers of a row by column, those that have none left out, and what is wrong with others."""
    found, wrong = {}, []
    for column in columns:
        cell = row.get(column, "")
        if cell.lower() in NOTHING:
            continue
        value, problem = _number(table, column, cell)
        if problem:
            wrong.append(f"{column}: expected {problem}, found {cell!r}")
        else:
            found[column] = value
    return found, wrong


def _number(table: Table, column: str, cell: str) -> tuple[float, str]:
    """A cell's number, and what was expected where it is none that the column can have: a metric lies between its bounds,
    costs and counts are not below 0, and counts are whole.
    """
    metric = METRICS.get(column.partition("/")[0])
    least, most = metric.within if metric else (0.0, math.inf)
    try:
        value = table.number(cell)
    except ValueError:
        return math.nan, "a number"
    if (column in COUNTS or column.endswith("_failed")) and not (value >= 0 and value.is_integer()):
        return value, "a whole number"
    if not least - ROUNDED <= value <= most + ROUNDED:
        up = " from 0 up" if least == 0 else ""
        return value, f"{least:g} to {most:g}" if most < math.inf else f"a number{up}"
    return value, ""


def _line(row: Mapping[str, str], cells: Mapping[str, float], track: Track) -> Line:
    by_subset: dict[str, dict[str, float]] = {}
    if track.average == "subsets":
        by_subset = {
            name: {subset: cells[f"{name}/{subset}"] for subset in track.subsets if f"{name}/{subset}" in cells}
            for name in track.known_metrics
        }
    means = {name: cells[name] for name in track.known_metrics if name in cells}
    means |= {name: track.mean(of) for name, of in by_subset.items() if len(of) == len(track.subsets)}
    failed = [(gate, cells.get(f"{gate.name}_failed", cells.get("failed_images"))) for gate in track.gates]
    gates = tuple(GateResult(gate, int(count)) for gate, count in failed if count is not None)
    lacking = [term.metric for term in track.terms if term.metric not in means]
    costs = tuple(_cost(name, row, cells) for name in wanted_costs(track))
    where = " for all subsets" if track.average == "subsets" else ""
    protocol = row.get("protocol", "")
    own = track.noise.protocol if track.noise else ""
    measured = next((words for name, words in PROTOCOLS.items() if name == protocol), protocol)
    other = [f"another protocol, not to be ranked with this track's: noise {measured}"]
    other = other if protocol and own and protocol != own else []
    reasons = [f"{', '.join(dict.fromkeys(lacking))} not given{where}"] if lacking else []
    reasons += [f"gate {gate.name}: failed images not given" for gate, count in failed if count is None]
    images = int(cells.get("images", track.count or 0))
    line = Line(
        row.get("entry") or row["team"], row["team"], track, means, track.total(means), images,
        int(cells.get("scored", images)), gates=gates, by_subset=by_subset, notes=_listed(row.get("notes", "")), costs=costs,
    )  # fmt: skip
    line = replace(line, notes=tuple(dict.fromkeys((*line.notes, *notes_at_gates(line)))))
    # Our own tables say why an entry is not valid; what its numbers say again is not said twice.
    said = _listed(row.get("problems", "")) or (("not valid",) if row.get("valid") == "no" else ())
    return replace(
        line, problems=tuple(dict.fromkeys((*other, *said, *([] if said else reasons), *problems_of(line, []))))
    )


def _cost(name: Name, row: Mapping[str, str], cells: Mapping[str, float]) -> EntryCost:
    """A cost with the source that our own tables state."""
    column = next((one for one in _columns_of(name) if one in cells), None)
    if column is None:
        return EntryCost(name, None, "")
    return EntryCost(name, cells[column], row.get(f"{column}_source") or "table")


def _listed(cell: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split(";") if part.strip())


def _line_of_images(table: Table, track: Track) -> Line:
    """A line from a `scores.csv` that `ntire score` wrote; no image is touched."""
    table.require(["image", "subset", "status"])
    metrics = [name for name in track.known_metrics if name in table.header]
    rows: list[Row] = []
    of_set: dict[str, float] = {}
    broken: list[str] = []
    problems = []
    for number, row in table.rows:
        values, wrong = _numbers(table, row, metrics)
        problems += [f"line {number}: {one}" for one in wrong]
        if row["status"] == BROKEN:
            broken.append(row.get("problem", ""))
        elif row["status"] == OF_SET:
            of_set |= {f"{name}/{row['subset']}".rstrip("/"): value for name, value in values.items()}
        elif (status := _status(row["status"])) is None:
            problems.append(f"line {number}: status: expected one of {', '.join(_STATUSES)}, found {row['status']!r}")
        else:
            rows.append(Row(row["image"], row["subset"], status, values, row.get("problem", "")))
    if not metrics:
        problems.append(f"has none of the metrics of track {track.name}: {', '.join(track.metrics)}")
    if problems:
        raise UserError("\n".join(f"{table.path}: {problem}" for problem in problems))
    scored = Scored(_submission(table.path, track), tuple(rows), of_set, of_set)
    names = [name for name in metrics if name in of_set or METRICS[name].over == "image"]
    refused = dict.fromkeys((*broken, *_refused(table.path)))
    return line_of(
        scored, track, names, {}, refused=tuple(refused), figures=figures_beside(table.path.resolve().parent)
    )


_STATUSES: dict[str, Status] = {one: one for kind in get_args(Status) for one in (get_args(kind) or (kind,))}


def _status(cell: str) -> Status | None:
    return _STATUSES.get(cell)


def _submission(path: Path, track: Track) -> Submission:
    """The entry that a `scores.csv` is of: by its manifest beside it, or by the leaderboard one folder up."""
    root = path.resolve().parent
    manifest = next((root / name for name in (ENTRY, MANIFEST) if (root / name).is_file()), None)
    if manifest is not None:
        found = Submission(root, read_toml(manifest, Manifest))
        if found.track != track.name:
            raise UserError(
                f"{path}: is of an entry for track {found.track}, not for {track.name}. Choose with --track."
            )
        return found
    team = next((row["team"] for row in _ranked_before(root) if row.get("team")), root.name)
    return Submission(root, Manifest.model_validate({"team": team, "track": track.name, "date": "2000-01-01"}))


def _refused(path: Path) -> tuple[str, ...]:
    """The rules that an entry breaks beyond its images, as the leaderboard one folder up says: 0.1.0 wrote it nowhere else."""
    said = [problem for row in _ranked_before(path.resolve().parent) for problem in _listed(row.get("problems", ""))]
    return broken_rules(said)


def _ranked_before(root: Path) -> list[Mapping[str, str]]:
    """The rows of an entry on the leaderboard that lies beside its folder."""
    board = root.parent / "leaderboard.csv"
    return [row for _, row in read_table(board).rows if row.get("entry") == root.name] if board.is_file() else []
