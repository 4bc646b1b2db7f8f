"""Published rows against the papers' own text, and their averages computed again."""

import csv
import re
from collections import Counter
from functools import cache

import pytest

from ntire.scoring.leaderboard import ranked
from ntire.scoring.metrics import METRICS
from ntire.scoring.read_back import published_lines
from ntire.scoring.track import PUBLISHED, all_tracks, load_track, published_rows

PAPERS = {"MIRAGE": "002", "UIR-LoRA": "003", "Lu et al.": "004", "NTIRE 2025 face report": "001"}
ROWS = {
    "MIRAGE table 1": 20, "MIRAGE table 2": 21, "MIRAGE table 3": 8, "MIRAGE table 4": 12, "MIRAGE table 5": 8,
    "MIRAGE table 7": 7, "MIRAGE table B (a)": 9, "MIRAGE table B (b)": 9, "MIRAGE table B (c)": 9, "MIRAGE table C": 4,
    "MIRAGE table D": 4, "UIR-LoRA table 1": 9, "UIR-LoRA table 2": 7, "UIR-LoRA table 3": 5, "UIR-LoRA table 4": 2,
    "UIR-LoRA tables 6 to 9": 9, "UIR-LoRA table 10": 4, "Lu et al. table 1": 7, "Lu et al. table 2": 12,
    "Lu et al. table 3": 7, "Lu et al. table 6": 7, "Lu et al. table 7": 7, "Lu et al. table 8": 7, "Lu et al. table 9": 7,
    "Lu et al. table 10": 9, "NTIRE 2025 face report table 1": 13,
    "NTIRE 2026 ESR repository results.txt": 16,
}  # fmt: skip
"""Rows of each table, counted by eye."""
NO_PAPERS = ("esr-2026",)
"""Tables of a repository: `test_efficiency.py` holds that one against the repository's own."""
SPELLED = (
    (r"(MIRAGE-T|Diffusion-trained|UIR-LoRA), (router:?|rank)? ?", ""),
    (r"(MIRAGE)-[TS]", r"\1"),
    ("reproduced by MIRAGE", "Reproduce"),
    (r"[()]", ""),
    (r"^(Diffusion-trained|UIR-LoRA)$", r"Ours|\1"),
    (r"^Diffusion-trained \+", "Ours ."),
    (r"^all$", "Âll"),
    (r"L_(reg|orthog)", r".*\1"),
    ("t_mat", "tmat"),
)
"""What a paper calls a row, where we call it otherwise."""


TRACKS = [
    track.name
    for track in all_tracks()
    if (PUBLISHED / f"{(track.published or track.name).partition('/')[0]}.csv").is_file()
]


def table_of(name):
    return list(csv.DictReader((PUBLISHED / f"{name}.csv").read_text().splitlines()))


def in_print(text):
    """The numbers of a line, with and without the nought in front alike."""
    return [number.removeprefix("0") for number in re.findall(r"(?<![\w.])\d*\.\d+(?![\w])", text)]


def runs(row):
    """The numbers of a row in the orders in which papers print them: PSNR and SSIM of each column in turn, or one metric after
    the other.
    """
    names = [name for name in row if name.partition("/")[0] in METRICS]
    of = {metric: [name for name in names if name.partition("/")[0] == metric] for metric in METRICS}
    of = {metric: found for metric, found in of.items() if found}
    in_turn = [name for column in zip(*of.values(), strict=True) for name in column]
    numbers = lambda found: [row[name].removeprefix("0") for name in found if row[name]]  # noqa: E731
    return numbers(in_turn), [numbers(found) for found in of.values()]


def holds(printed, wanted):
    return any(printed[at : at + len(wanted)] == wanted for at in range(len(printed) - len(wanted) + 1))


@pytest.mark.data
@pytest.mark.parametrize("name", sorted(path.stem for path in PUBLISHED.glob("*.csv") if path.stem not in NO_PAPERS))
def test_every_cell_is_the_paper_s(data, name):
    if not (data.parent / "reports").is_dir():
        pytest.skip(f"the papers are not in {data.parent / 'reports'}")
    for row in table_of(name):
        paper = next(one for one in PAPERS if row["source"].startswith(one))
        (path,) = (data.parent / "reports").glob(f"{PAPERS[paper]}_*.txt")
        lines = lines_of(path)
        printed = [in_print(line) for line in lines if re.search(rf"(^|\s)({in_paper(row['team'])})", line, re.I)]
        in_turn, by_metric = runs(row)
        whole = any(holds(one, in_turn) for one in printed)
        assert whole or all(any(holds(one, run) for one in printed) for run in by_metric), row


@cache
def lines_of(path):
    """Lines of a paper with numbers in them, without its mathematical signs."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [re.sub(r"</?u>|[$\\{}^()]", "", line) for line in lines if re.search(r"\.\d\d", line)]


def in_paper(team):
    for ours, theirs in SPELLED:
        team = re.sub(ours, theirs, team)
    return team


def test_every_row_of_every_table_is_there_once():
    found = Counter()
    for path in PUBLISHED.glob("*.csv"):
        found.update({tuple(row["source"].split(", row ")) for row in table_of(path.stem)})
    assert set(found.values()) <= {1, 2, 3, 4}, "one table may have columns of several tracks, never a row twice in one"
    rows = Counter(table for table, _ in found)
    assert rows == ROWS
    for path in PUBLISHED.glob("*.csv"):
        sources = [row["source"] for row in table_of(path.stem)]
        assert len(set(sources)) == len(sources), path.stem


@pytest.mark.parametrize("name", TRACKS)
def test_averages_are_computed_again_and_a_paper_s_own_stands_beside_where_it_is_another(name):
    track = load_track(name)
    lines = published_lines(track)
    assert len(ranked(lines)) == len({line.entry for line in lines})
    printed = {row["source"]: row for row in csv.DictReader(published_rows(track).read_text().splitlines())}
    for line in lines:
        row = printed[next(note for note in line.notes if note in printed)]
        for metric, of in line.by_subset.items():
            if set(of) == set(track.subsets) and row.get(metric):
                mean = sum(of.values()) / len(of)
                assert line.means[metric] == pytest.approx(mean)
                decimals = len(row[metric].partition(".")[2])
                said = any(f"the paper prints {metric} {row[metric]}" in note for note in line.notes)
                assert said == (abs(mean - float(row[metric])) > 1.5 * 10**-decimals), (line.entry, metric, mean)


def test_what_a_paper_prints_and_its_cells_do_not_give_is_shown():
    (ndr,) = (line for line in published_lines(load_track("multi-3")) if line.team == "NDR")
    assert "the paper prints psnr 25.01, its cells give 27.28" in ndr.notes
    assert ndr.total == pytest.approx((25.01 + 28.62 + 28.72 + 27.88 + 26.18) / 5)


def test_the_rows_of_one_table_or_one_column_are_those_alone():
    track = load_track("multi-10")
    assert len(published_lines(track, "UIR-LoRA table 1")) == 9
    (ours,) = (line for line in published_lines(track, "UIR-LoRA tables 6 to 9") if line.team == "UIR-LoRA")
    assert (ours.by_subset["fid-gt"]["hazy"], ours.by_subset["lpips"]["snowy"]) == (5.92, 0.070)
    revide = {line.team: dict(line.means) for line in published_lines(load_track("dehaze-revide"), "Lu et al. table 1")}
    assert revide["MAXIM"] == {"psnr": 17.01, "ssim-rgb": 0.653}
