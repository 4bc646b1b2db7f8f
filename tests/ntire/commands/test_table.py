"""Tables at 80 and 120 columns: nothing that a reader would copy is cut."""

import io
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from ntire.commands import screen, table
from ntire.commands.screen import Screen
from tests.conftest import ROOT

WIDTHS = (80, 120)
WORD = st.text("abcXYZ0189-_./é漢", min_size=1, max_size=70)
PROSE = st.lists(st.text("abcdefg,.", min_size=1, max_size=12), max_size=30).map(" ".join)


def printed(width, *given, **how):
    """What a table looks like on a terminal of that width."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screen, "out", Screen(width=width, highlight=False, file=io.StringIO()))
        screen.print_table(*given, **how)
        return screen.out.file.getvalue()


@settings(max_examples=30)
@given(data=st.data(), width=st.sampled_from(WIDTHS))
def test_no_word_is_cut_and_no_line_is_wider_than_the_terminal_unless_one_word_is(data, width):
    count = data.draw(st.integers(1, 6))
    prose = [number for number in range(count) if data.draw(st.booleans())]
    rows = [[data.draw(PROSE if number in prose else WORD) for number in range(count)] for _ in range(3)]
    header = [f"c{number}" for number in range(count)]
    spare = [name for name in header if data.draw(st.booleans())]
    shown = table.laid_out(header, rows, width, prose=[f"c{number}" for number in prose], spare=spare)
    text = printed(width, header, rows, prose=[f"c{number}" for number in prose], spare=spare)
    for line in text.splitlines():
        assert cell_len(line.rstrip()) <= width or len(line.split()) <= 2, line
    for number, name in enumerate(header):
        if name not in shown.left_out:
            for row in rows:
                words = row[number].split() if number in prose else [row[number]]
                assert all(word in text for word in words)
    assert set(shown.left_out) <= set(spare)


def test_columns_go_in_the_order_of_their_priority_and_that_is_said():
    header = ["entry", "total", "95 %", "track"]
    rows = [["a-rather-long-name-of-an-entry", "123456.789", "0.123..0.456", "raim-2025-srgb-and-more-to-it-still"]]
    assert printed(120, header, rows, spare=["track", "95 %"]).count("\n") == 2
    narrow = printed(80, header, rows, spare=["track", "95 %"])
    assert "no room for: track. A wider terminal or --json shows all." in narrow
    assert "0.123..0.456" in narrow
    tiny = printed(24, header, rows, spare=["track", "95 %"])
    assert tiny.splitlines()[0].split() == ["entry", "a-rather-long-name-of-an-entry"]
    assert "raim-2025-srgb-and-more-to-it-still" in tiny, "stacked rows have all their cells"


def test_a_pipe_has_no_width():
    row = ["word " * 100, "x" * 300]
    lines = printed(screen.NO_WIDTH, ["a", "b"], [row], prose=["a"]).splitlines()
    assert lines[1] == f"{row[0]}  {row[1]}"


def test_a_path_in_a_sentence_is_not_broken(capsys, monkeypatch):
    monkeypatch.setattr(screen, "out", Screen(width=40, highlight=False))
    path = "/a/folder/with/a/name/that/is/longer/than/the/line/board.csv"
    screen.out.print(f"the tables that were written are here: {path}, and more", markup=False)
    assert path in capsys.readouterr().out


@pytest.fixture(scope="module")
def broken_entry(tmp_path_factory) -> Path:
    """An entry with mistakes, at a path that is long."""
    folder = tmp_path_factory.mktemp("an-entry-with-a-name-that-is-rather-long-for-a-terminal") / "median"
    shutil.copytree(ROOT / "submissions" / "example" / "median", folder)
    (folder / "images" / "sky.png").unlink()
    (folder / "images" / "cones.png").write_bytes(b"\xff\xd8\xff\xe0 not a PNG")
    (folder / "images" / "a-picture-that-nobody-asked-for-with-a-long-name.png").write_bytes(b"")
    return folder


CALLS = {
    "tracks": ["tracks"],
    "teams": ["teams"],
    "fidelity": ["teams", "--fidelity", "--team", "IID-AI"],
    "weights": ["weights", "list"],
    "weights of one": ["weights", "list", "MiAlgo"],
    "weights verified": ["weights", "verify", "MiAlgo"],
    "published": ["leaderboard", "--track", "mixed", "--published"],
    "subsets": ["leaderboard", "--track", "multi-3", "--published"],
    "check": ["check", "ENTRY", "--lq", ROOT / "submissions" / "example" / "lq"],
    "cost": ["cost", "--team", "Copy", "--track", "srgb"],
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("call", CALLS)
def test_every_table_of_a_command_fits_or_says_what_it_left_out(ntire, broken_entry, monkeypatch, call, width):
    laid, tables = table.laid_out, []

    def seen(header, rows, room, *, prose=(), spare=()):
        rows = [list(row) for row in rows]
        shown = laid(header, rows, room, prose=prose, spare=spare)
        tables.append((header, rows, prose, shown))
        return shown

    monkeypatch.setattr(table, "laid_out", seen)
    monkeypatch.setattr(screen, "out", Screen(width=width, highlight=False))
    for module in ("measuring", "scoring", "weights", "reviewing"):
        __import__(f"ntire.commands.{module}")
        monkeypatch.setattr(f"ntire.commands.{module}.out", screen.out)
    ran = ntire(*(broken_entry if word == "ENTRY" else word for word in CALLS[call]))
    assert ran.code == (call == "check")
    assert tables or call == "cost"
    for line in ran.out.splitlines():
        assert cell_len(line.rstrip()) <= width or len(line.split()) <= 3, line
    for header, rows, prose, shown in tables:
        for row in rows:
            for name, cell in zip(header, row, strict=True):
                if name not in shown.left_out:
                    whole = [cell] if name not in prose else cell.split()
                    assert all(word in ran.out for word in whole), (name, cell)
