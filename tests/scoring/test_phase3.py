"""The final of RAIM: marks of phase 3 joined to the total of phase 2."""

from dataclasses import replace

import pytest

from ntire import UserError
from ntire.commands.scoring import leaderboard
from ntire.scoring.leaderboard import ranked
from ntire.scoring.phase3 import read_marks
from ntire.scoring.tables import markdown
from ntire.scoring.track import in_words, load_track

MEANS = """team,psnr-y,ssim-y,lpips,dists,niqe
A,38,0.95,0.07,0.06,4.5
B,36,0.93,0.10,0.08,4.5
C,35,0.92,0.12,0.09,4.5
"""


@pytest.fixture
def means(tmp_path):
    (tmp_path / "means.csv").write_text(MEANS)
    return tmp_path / "means.csv"


def marks(tmp_path, text):
    (tmp_path / "marks.csv").write_text(text)
    return tmp_path / "marks.csv"


def test_the_final_adds_the_marks_and_ranks_by_the_sum(means, tmp_path):
    before = {line.entry: line.total for line in leaderboard(means, track="raim-2025-raw").lines}
    given = marks(tmp_path, "team,user_study,efficiency\nA,1,2\nB,20,5.5\n")
    found = leaderboard(means, track="raim-2025-raw", phase3=given).lines
    assert [line.entry for line in found] == ["B", "A", "C"]
    assert [line.rank for line in found] == [1, 2, None]
    assert found[0].total == pytest.approx(before["B"] + 25.5)
    assert found[1].total == pytest.approx(before["A"] + 3)
    assert found[2].problems == ("no marks of phase 3",)
    assert found[2].total is None
    assert "user_study 20, efficiency 5.5, phase3 25.5" in found[0].notes[-1]


def test_the_marks_of_an_entry_are_not_those_of_another_of_its_team(tmp_path):
    """A table that names entries, as that of a study does, marks these alone; one that names teams marks all of theirs."""
    header, *rows = MEANS.splitlines()
    names = ["A,A", "A-v2,A", "C,C"]
    table = [f"{both},{row.partition(',')[2]}" for both, row in zip(names, rows, strict=True)]
    (tmp_path / "means.csv").write_text("\n".join(["entry," + header, *table]))
    given = marks(tmp_path, "entry,user_study,efficiency\nA,1,2\n")
    found = {
        line.entry: line for line in leaderboard(tmp_path / "means.csv", track="raim-2025-raw", phase3=given).lines
    }
    assert found["A"].rank == 1
    assert found["A-v2"].problems == ("no marks of phase 3",)
    given = marks(tmp_path, "team,user_study,efficiency\nA,1,2\n")
    found = {
        line.entry: line for line in leaderboard(tmp_path / "means.csv", track="raim-2025-raw", phase3=given).lines
    }
    assert {name: line.rank for name, line in found.items()} == {"A": 1, "A-v2": 2, "C": None}


def test_a_final_lists_entries_without_a_total_whatever_of_them_is_known(means, tmp_path):
    """Their ties were compared with names, which ended in a traceback."""
    means.write_text(MEANS.replace("B,36,0.93", "B,36,").replace("C,35,0.92,0.12,0.09,4.5", "C,35,0.92,,,"))
    given = marks(tmp_path, "team,user_study,efficiency\nA,1,2\n")
    track = load_track("raim-2025-raw").model_copy(update={"tie_break": ("ssim-y",)})
    own = leaderboard(means, track="raim-2025-raw", phase3=given).lines
    assert [line.rank for line in own] == [1, None, None]
    assert [line.entry for line in ranked([replace(line, track=track) for line in own])] == ["A", "C", "B"]


def test_the_final_has_no_ranks_of_its_formula_alone(means, tmp_path):
    given = marks(tmp_path, "team,user_study,efficiency\nA,1,2\nB,20,5.5\nC,0,0\n")
    assert "when one metric is left out" in markdown(leaderboard(means, track="raim-2025-raw").lines)
    assert "when one metric is left out" not in markdown(leaderboard(means, track="raim-2025-raw", phase3=given).lines)


def test_weights_are_the_rules(means, tmp_path):
    rules = load_track("raim-2025-raw").model_dump(mode="json", exclude_defaults=True)
    rules["final"] |= {"w2": 0.5, "w3": 2.0, "inputs": {"user_study": 1.0, "efficiency": 0.1}}
    import tomli_w

    (tmp_path / "own.toml").write_text(tomli_w.dumps(rules))
    given = marks(tmp_path, "team,user_study,efficiency\nA,10,30\nB,0,0\nC,0,0\n")
    before = {line.entry: line.total for line in leaderboard(means, track="raim-2025-raw").lines}
    found = {line.entry: line.total for line in leaderboard(means, track=tmp_path / "own.toml", phase3=given).lines}
    assert found["A"] == pytest.approx(0.5 * before["A"] + 2 * (10 + 3))


def test_marks_that_do_not_fit_are_all_told(means, tmp_path):
    rules = load_track("raim-2025-srgb")
    with pytest.raises(UserError, match="efficiency"):
        read_marks(marks(tmp_path, "team,user_study\nA,1\n"), rules)
    with pytest.raises(UserError, match=r"(?s)user_study: expected a number, found 'x'.*A stands here twice"):
        read_marks(marks(tmp_path, "team,user_study,efficiency\nA,x,1\nA,1,1\n"), rules)
    with pytest.raises(UserError, match="has the team Nobody"):
        leaderboard(means, track="raim-2025-srgb", phase3=marks(tmp_path, "team,user_study,efficiency\nNobody,1,1\n"))
    with pytest.raises(UserError, match="face-2025 has no phase 3"):
        read_marks(tmp_path / "marks.csv", load_track("face-2025"))


def test_the_rules_say_what_is_certain_and_what_is_inferred():
    for name in ("raim-2025-raw", "raim-2025-srgb"):
        words = in_words(load_track(name))
        assert "Certain: " in words
        assert "Inferred: " in words
        assert "final      1 x phase 2 + 1 x (user_study + efficiency)" in words
