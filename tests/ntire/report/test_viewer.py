"""The viewer in a browser: panes move together, the slider cuts, a key flickers, the difference is eight times |A - B|."""

import io
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from tests.made import write_png

VIEWER = (files("ntire.report") / "static" / "viewer.js").read_text()
PAGE = """<!doctype html><meta charset="utf-8"><body style="margin:0"><div id="v"></div><script>{viewer}</script><script>
window.viewer = new PictureViewer(document.getElementById("v"), {{pictures: [
 {{label: "left", src: "a.png", note: "1 dB"}}, {{label: "<b>right", src: "b.png"}}, {{label: "gone", missing: "missing"}}]}});
</script>"""


@pytest.fixture
def page(opened, tmp_path):
    # The browser itself asks for its icon nowhere; colours are flat, so that what is seen can be read off.
    for name, level in (("a", 100), ("b", 110)):
        write_png(tmp_path / f"{name}.png", np.full((60, 80, 3), level, np.uint8))
    (tmp_path / "page.html").write_text(PAGE.format(viewer=VIEWER))
    page = opened.open(tmp_path / "page.html")
    page.wait_for_function("viewer.size !== null && document.querySelectorAll('.pv-stage img').length === 2")
    yield page
    assert opened.errors == []
    assert opened.beyond == []


def transforms(page):
    return page.eval_on_selector_all(".pv-stage img", "all => all.map(one => one.style.transform)")


def seen(page, across=0.5):
    """The colour in the middle of a stage's height, at a share of its width."""
    box = page.locator(".pv-stage").first.bounding_box()
    picture = Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")
    return picture.getpixel((int(across * (picture.width - 1)), picture.height // 2))


def test_all_panes_show_the_same_part(page):
    stage = page.locator(".pv-stage").first
    box = stage.bounding_box()
    whole = transforms(page)
    assert len(set(whole)) == 1
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    page.mouse.wheel(0, -600)
    zoomed = transforms(page)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()
    dragged = transforms(page)
    assert len({whole[0], zoomed[0], dragged[0]}) == 3
    assert len(set(zoomed)) == len(set(dragged)) == 1
    page.get_by_role("button", name="Whole").click()
    assert transforms(page) == whole
    page.get_by_role("button", name="Single pixels").click()
    assert "100 %" in page.locator(".pv-zoom").inner_text()
    # What is not there has a pane that says so, and a name is a name.
    assert page.locator(".pv-missing").inner_text() == "missing"
    assert page.locator("figcaption b").all_inner_texts() == ["left", "<b>right", "gone"]


def test_the_slider_cuts_between_two_pictures(page):
    page.keyboard.press("Tab")
    page.locator(".pv-panes").focus()
    page.keyboard.press("l")
    assert (seen(page, 0.25), seen(page, 0.75)) == ((100,) * 3, (110,) * 3)
    page.get_by_label("Where A ends").fill("90")
    assert seen(page, 0.75) == (100,) * 3
    box = page.locator(".pv-stage").bounding_box()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 20, steps=3)
    page.mouse.up()
    assert seen(page, 0.25) == (110,) * 3


def test_a_key_flickers_and_the_difference_is_eight_fold(page):
    page.locator(".pv-panes").focus()
    page.keyboard.press("f")
    assert seen(page) == (100,) * 3
    page.keyboard.press("Space")
    assert seen(page) == (110,) * 3
    assert page.locator(".pv-said").inner_text() == "<b>right"
    page.keyboard.press("d")
    assert seen(page) == (80,) * 3
    page.get_by_label("Picture B").select_option("0")
    assert seen(page) == (0, 0, 0)
