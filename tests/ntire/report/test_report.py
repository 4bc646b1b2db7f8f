"""`ntire report` in a browser: it sorts, zooms, slides, says why entries are not valid, escapes names, asks no network."""

import json
import os
import shutil
import zipfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

import ntire
from ntire import UserError
from ntire.commands.reporting import report
from ntire.entry.verdict import sealed
from ntire.report.results import read_results
from tests.made import scene, write_png

RULES = """
name = "field"
title = "A field </title><script>hacked = 1</script>"
inputs = "srgb"
subsets = { street = 2, indoor = 2 }
metrics = ["psnr", "ssim"]
terms = [{ metric = "psnr", scale = 1.0 }, { metric = "ssim", scale = 1.0 }]
gates = [{ name = "kept", metric = "ssim", thresholds = { street = 0.5, indoor = 0.5 }, max_failures = 0 }]
source = "s"
"""
NAMES = ("street/a", "street/b", "indoor/c", 'indoor/d"><img src=x onerror=hacked=2>')
HOSTILE = "<img src=x onerror=hacked=3>'\"&{{7*7}}"
TEAM = "</script><script>hacked=4</script>\u202eevil"


def entry(place, name, noise, team):
    rng = np.random.default_rng(noise)
    for seed, image in enumerate(NAMES):
        clean = scene(seed=seed).astype(int)
        write_png(
            place / name / "images" / f"{image}.png",
            (clean + rng.normal(0, noise, clean.shape)).clip(0, 255).astype(np.uint8),
        )
    manifest = f"team = {json.dumps(team)}\ntrack = 'field'\ndate = 2026-01-01\n"
    (place / name / "submission.toml").write_text(manifest)
    return place / name


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("field")
    (root / "field.toml").write_text(RULES)
    for seed, image in enumerate(NAMES):
        write_png(root / "gt" / f"{image}.png", scene(seed=seed))
        write_png(root / "lq" / f"{image}.png", scene(seed=seed) // 2)
    for name, noise in (("good", 2), (HOSTILE, 4), ("poor", 90)):
        entry(root / "uploads", name, noise, TEAM if name == HOSTILE else name)
    zipped = entry(root, "zipped", 6, "zipped")
    with zipfile.ZipFile(root / "uploads" / "zipped.zip", "w") as made:
        for path in sorted(zipped.rglob("*")):
            made.write(path, path.relative_to(zipped))
    torn = entry(root / "uploads", "torn", 3, "torn") / "images" / "street" / "a.png"
    torn.write_bytes(torn.read_bytes()[:-30])
    (root / "uploads" / "broken.zip").write_bytes(b"PK")
    board = ntire.score(
        root / "uploads", root / "field.toml", gt=root / "gt", lq=root / "lq", device="cpu", cache=False
    )
    return board.write()


@pytest.fixture(scope="module")
def written(results, tmp_path_factory):
    return report(results, tmp_path_factory.mktemp("pages") / "report").parent


def column(page, number):
    return page.eval_on_selector_all(
        f"table.leaderboard tbody tr > :nth-child({number})", "all => all.map(one => one.textContent.trim())"
    )


def quiet(opened):
    assert opened.page.evaluate("typeof hacked") == "undefined"
    assert opened.errors == []
    assert opened.beyond == []


def test_the_leaderboard_sorts_and_says_why_not(opened, written):
    page = opened.open(written / "index.html")
    ranks = column(page, 1)
    assert ranks == ["1", "2", "3", "N/A", "N/A", "N/A"]
    page.get_by_role("button", name="ssim").click()
    assert column(page, 2)[0].startswith("good")
    page.get_by_role("button", name="ssim").click()
    assert column(page, 2)[0].startswith("poor")
    # What has no number stays last.
    assert column(page, 2)[-1].startswith(("torn", "broken"))
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("ssim")
    rows = page.locator("table.leaderboard tbody tr")
    assert "gate kept: 4 failed, 0 allowed" in rows.filter(has_text="poor").inner_text()
    assert "E101 archive cannot be read" in rows.filter(has_text="broken").inner_text()
    assert page.locator("table.leaderboard svg.interval").count() == 6
    assert page.locator(".bump polyline").count() == 3
    quiet(opened)


def test_every_name_is_text_on_every_page(opened, written):
    pages = sorted(written.glob("*.html"))
    assert len(pages) == 1 + 6 + 1 + 4
    for path in pages:
        page = opened.open(path)
        assert page.locator("img[onerror], img[src=x]").count() == 0, path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        quiet(opened)
    entry_page = next(path for path in pages if path.name.startswith("entry-") and "7*7" in path.read_text())
    page = opened.open(entry_page)
    assert page.locator("h1").inner_text() == HOSTILE
    # A letter that turns the text around is shown as what it is.
    assert "\\u202eevil" in page.locator(".facts").inner_text()
    assert "\u202e" not in "".join(path.read_text() for path in pages)


def spoken(page):
    """Role and name of all that a screen reader can reach with the keyboard, and of every picture, from the browser's tree."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = []
    for node in tree:
        role = node.get("role", {}).get("value")
        focusable = any(one["name"] == "focusable" and one["value"]["value"] for one in node.get("properties", ()))
        if not node["ignored"] and role != "RootWebArea" and (focusable or role in ("image", "img")):
            found.append((role, node.get("name", {}).get("value", "").strip()))
    return found


CONTROLS = {
    "index": {("link", "good"), ("button", "psnr"), ("region", "Leaderboard of field")},
    "entry-2": {("button", "Status"), ("DisclosureTriangle", "All 4 pictures")},
    "pictures-1": {("searchbox", "Find"), ("combobox", "Order"), ("link", "indoor/c")},
    "picture-1-1": {
        ("button", "Larger"), ("combobox", "Picture A"), ("slider", "Where A ends and B"), ("link", "full picture of good"),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_and_picture_has_a_role_and_a_name_for_a_screen_reader(opened, written, name):
    page = opened.open(written / f"{name}.html")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    if name.startswith("picture-"):
        page.wait_for_function("document.querySelector('.viewer').viewer")
        page.locator(".pv-panes").focus()
        page.keyboard.press("l")
    found = spoken(page)
    assert [one for one in found if one[0] in ("generic", "none", None) or not one[1]] == []
    for role, words in CONTROLS[name]:
        assert any(one == role and said.startswith(words) for one, said in found), (role, words, found)
    assert not [said for _, said in found if {"▲", "▼"} & {*said}], "arrows are for the eye"


def test_pictures_are_compared_side_by_side(opened, written):
    page = opened.open(written / "pictures-1.html")
    page.get_by_label("Find").fill("indoor/c")
    assert page.locator("#gallery-1 li:visible").count() == 1
    page.locator("#gallery-1 li:visible a").click()
    page.wait_for_function("document.querySelector('.viewer').viewer")
    labels = page.locator(".pv-pane figcaption b").all_inner_texts()
    assert (labels[0], labels[1], labels[-1]) == ("input", "good", "truth")
    assert set(labels) == {"input", "good", HOSTILE, "zipped", "torn", "poor", "truth"}
    page.wait_for_function("[...document.querySelectorAll('.pv-stage img')].every(one => one.naturalWidth === 48)")
    before = page.locator(".pv-stage img").first.evaluate("one => one.style.transform")
    page.get_by_role("button", name="Larger").click()
    after = page.locator(".pv-stage img").evaluate_all("all => [...new Set(all.map(one => one.style.transform))]")
    assert len(after) == 1
    assert after[0] != before
    page.locator(".pv-panes").focus()
    page.keyboard.press("l")
    assert page.get_by_role("slider").is_visible()
    assert page.locator(".pv-stage img").nth(1).evaluate("one => one.style.clipPath") != "none"
    page.keyboard.press("n")
    page.wait_for_url("**/picture-1-2.html")
    quiet(opened)


def test_full_pictures_are_linked_and_what_was_refused_is_not_shown(results, written):
    torn = json.loads((written / "picture-1-3.html").read_text().split('application/json">')[1].split("</script>")[0])
    by_name = {one["label"]: one for one in torn["pictures"]}
    # Subsets are in the order of their names: the third is street/a.
    assert by_name["torn"] == {"label": "torn", "note": "unreadable", "missing": "unreadable"}
    assert (written / by_name["good"]["src"]).resolve() == results.parent / "uploads/good/images/street/a.png"
    copied = written / by_name["zipped"]["src"]
    assert copied.is_relative_to(written / "full")
    assert copied.read_bytes() == (results.parent / "zipped/images/street/a.png").read_bytes()
    assert all((written / one["thumb"]).read_bytes()[8:12] == b"WEBP" for one in torn["pictures"] if "thumb" in one)


def test_one_file_holds_everything(opened, results, tmp_path):
    page_file = report(results, tmp_path / "mail.html", single_file=True, limit=2)
    assert list(tmp_path.glob("*.html")) == [page_file]
    page = opened.open(page_file)
    assert page.locator("h1").count() == 1 + 6 + 1 + 2
    page.locator(".viewer").first.scroll_into_view_if_needed()
    page.wait_for_function(
        "document.querySelector('.viewer').viewer?.size && document.querySelector('.pv-stage img').naturalWidth"
    )
    assert page.evaluate(
        "[...document.querySelectorAll('.gallery img')].every(one => one.src.startsWith('data:image/webp'))"
    )
    quiet(opened)
    assert [one for one in opened.requests if not one.startswith("data:")] == [page_file.as_uri()]


@pytest.mark.parametrize("single_file", [False, True])
def test_a_user_study_is_shown_in_a_frame_without_scripts(opened, results, tmp_path, single_file):
    judged = tmp_path / "judged"
    judged.mkdir()
    (judged / "index.html").write_text('<!doctype html><title>t</title><h1>Judged "blindly" &amp; screened</h1>')
    with pytest.raises(UserError, match=r"expected index.html and marks.csv.*ntire study results"):
        report(results, tmp_path / "report", study=judged)
    (judged / "marks.csv").write_text("entry,user_study\n")
    page = opened.open(report(results, tmp_path / "report", study=judged, single_file=single_file, limit=1))
    page.get_by_role("link", name="User study").click()
    assert page.frame_locator("iframe").locator("h1").inner_text() == 'Judged "blindly" & screened'
    assert page.locator("iframe").get_attribute("sandbox") == ""
    quiet(opened)


def test_results_without_their_sources_are_tables_alone(opened, results, tmp_path):
    moved = shutil.copytree(results, tmp_path / "moved")
    (moved / "sources.json").unlink()
    lines = json.loads((moved / "leaderboard.json").read_text())
    for line in lines:
        line["track"] = "demo-srgb"
    (moved / "leaderboard.json").write_text(json.dumps(lines))
    said = []
    page = opened.open(report(moved, tmp_path / "report", say=said.append))
    assert "no sources.json" in said[0]
    assert column(page, 1)[:3] == ["1", "2", "3"]
    assert "no sources.json" in page.locator("details.remarks").text_content()
    quiet(opened)


def test_details_of_a_verdict_are_those_of_the_one_that_the_leaderboard_shows(results, tmp_path):
    moved = shutil.copytree(results, tmp_path / "moved")
    lines = json.loads((moved / "leaderboard.json").read_text())
    next(line for line in lines if line["entry"] == "good")["reproduced"] = "pass (1 of 4)"
    (moved / "leaderboard.json").write_text(json.dumps(lines))
    verdict = {"verdict": "pass", "images": [{"image": "a"}], "of": 4, "content": "x", "probes": [{"name": "cut"}]}

    def shown(**more):
        (moved / "good" / "verification.json").write_text(json.dumps(sealed({**verdict, **more}, None)))
        return next(one for track in read_results(moved) for one in track.entries if one.key == "good").verdict

    assert shown()["probes"] == [{"name": "cut"}]
    assert shown(verdict="fail", images=[{"image": "a"}] * 4) == {}


def test_pictures_that_have_changed_since_they_were_scored_are_not_shown_beside_the_old_scores(results, tmp_path):
    moved = shutil.copytree(results.parent, tmp_path / "field")
    for path in ("uploads/good/images/street/a.png", "gt/street/b.png"):
        write_png(moved / path, scene(seed=9))
    with zipfile.ZipFile(moved / "uploads" / "zipped.zip", "w") as made:
        for path in sorted((moved / "zipped").rglob("*")):
            if path.suffix != ".png" or path.stem != "c":
                made.write(path, path.relative_to(moved / "zipped"))
        made.write(moved / "uploads/good/images/street/a.png", "images/indoor/c.png")
    said = []
    pages = report(moved / results.name, tmp_path / "report", full="copy", say=said.append).parent
    assert all("has changed since it was scored" in one for one in said)
    truth = str(moved / "gt/street/b.png")
    assert sorted(one.partition(": has")[0] for one in said) == sorted([truth, "good: street/a", "zipped: indoor/c"])
    shown = {
        (name, one["label"]): one.get("src")
        for number, name in enumerate(sorted(NAMES), 1)
        for one in json.loads(
            (pages / f"picture-1-{number}.html").read_text().split('application/json">')[1].split("</script>")[0]
        )["pictures"]
    }
    gone = {("street/a", "good"), ("indoor/c", "zipped"), ("street/a", "torn")}
    assert {key for key, src in shown.items() if src is None} == gone
    assert {name for name in NAMES if ("truth" in {label for one, label in shown if one == name})} == {*NAMES} - {
        "street/b"
    }


@pytest.mark.parametrize("name", ["caf\udce9", "équipe"])
def test_names_that_are_not_utf_8_are_found_again(results, tmp_path, name):
    moved = shutil.copytree(results.parent, tmp_path / "field")
    (moved / "uploads" / "good").rename(moved / "uploads" / name)
    given = {"gt": moved / "gt", "lq": moved / "lq"}
    board = ntire.score(moved / "uploads" / name, moved / "field.toml", **given, device="cpu", cache=False)
    pages = report(board.write(tmp_path / "again"), tmp_path / "report", limit=1).parent
    text = (pages / "picture-1-1.html").read_text()
    assert f"uploads/{quote(os.fsencode(name))}/images/" in text


def test_mistakes_are_told(results, tmp_path):
    with pytest.raises(UserError, match="found no leaderboard.json"):
        report(tmp_path, tmp_path / "report")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(UserError, match="found something else"):
        report(results, tmp_path / "mine")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "leaderboard.json").write_text("[{")
    with pytest.raises(UserError, match="is damaged"):
        report(damaged, tmp_path / "report")
    # A report is made anew in its place.
    first = report(results, tmp_path / "again", limit=2)
    assert len(list(first.parent.glob("picture-*.html"))) == 2
    report(results, Path(tmp_path / "again"), limit=1, full="none")
    assert len(list(first.parent.glob("picture-*.html"))) == 1
    assert not list((first.parent / "full").rglob("*.png"))


def test_inputs_have_the_noise_that_the_track_adds_and_are_copied(ntire, pictures, tmp_path):
    for track in ("denoise-15", "denoise-15-float"):
        run = ("run", "--team", "Copy", "--track", track, pictures, "--device", "cpu", "-o", f"entries/{track}")
        assert ntire(*run).code == 0
        assert ntire("score", f"entries/{track}", "--gt", pictures, "-o", track).code == 0
        page = report(track, tmp_path / f"report-{track}").parent
        for number in (1, 2, 3):
            given, truth = (
                np.asarray(Image.open(page / f"small/{kind}1/{number}.webp"), float) for kind in ("lq", "gt")
            )
            assert given.shape == truth.shape
            assert np.abs(given - truth).mean() > 3
        assert len(list((page / "full" / "lq1").iterdir())) == 3
        assert not list(page.glob("full/gt1/*"))
