"""The whole way as people go it, in a browser: consent, check, 20 pairs, undo, leaving, coming back."""

import math
from pathlib import Path

import pytest

from ntire.study.deck import hand
from ntire.study.design import open_study
from ntire.study.store import Store
from tests.ntire.study.serving import served, wait_for
from tests.ntire.study.test_app import edited

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium in /usr/bin")
SHORT = ("least_seconds = 2.0", "least_seconds = 0.1")
RESTS = (("break_every = 25", "break_every = 10"), ("break_seconds = 20", "break_seconds = 0"))


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser):
    """Pages whose scripts must not fail, and that ask nothing of other hosts."""
    contexts, problems = [], []

    def open_page(state=None, **options):
        context = browser.new_context(
            **({"viewport": {"width": 1366, "height": 768}, "storage_state": state} | options)
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: said.type == "error" and "507" not in said.text and problems.append(said.text))
        page.on(
            "request", lambda asked: asked.url.startswith(("http://127.0.0.1:", "blob:")) or problems.append(asked.url)
        )
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def painted(page, script):
    """What a script finds when the browser has painted what was asked of it before."""
    page.evaluate("() => new Promise((done) => { requestAnimationFrame(() => requestAnimationFrame(done)); })")
    return page.evaluate(script)


def begin(page, base, name="Ada"):
    page.goto(base + "/")
    page.fill("#name", name)
    page.click("button.primary")
    page.check("input[type=checkbox]")
    page.click("button.primary")
    pass_the_check(page)


def pass_the_check(page):
    """Count the squares on the canvas, as eyes would."""
    for number in range(6):
        page.wait_for_selector(f"#step:has-text('{number + 1} of')")
        seen = page.evaluate(
            """() => {
              const canvas = document.getElementById("patches"), context = canvas.getContext("2d");
              const at = (x) => [...context.getImageData(x, canvas.height / 2, 1, 1).data].slice(0, 3);
              const ground = at(1), slots = [0, 1, 2, 3, 4, 5].map((slot) => at(((slot + 0.5) * canvas.width) / 6));
              if (canvas.dataset.kind === "colour") return 1 + slots.findIndex(([r, g, b]) => r !== g || g !== b);
              return slots.filter((one) => one[0] !== ground[0]).length;
            }"""
        )
        page.keyboard.press(str(seen))
    assert "everything that it must" in page.inner_text("#verdict")
    page.click("#go")


def ready(page, position):
    page.wait_for_selector(f'body[data-ready="{position}"]')


def test_twenty_pairs_by_keyboard_and_mouse_with_undo_a_break_and_a_way_back(study, visit, tmp_path, ntire):
    folder = edited(study("--open"), SHORT, *RESTS, ("trials = 12", "trials = 16"))
    expected = []
    with served(folder) as (_, base, organiser):
        page = visit()
        begin(page, base)
        for position in range(8):
            ready(page, position)
            key = ("ArrowLeft", "ArrowRight", "ArrowDown")[position % 3]
            expected.append({"ArrowLeft": (1, 2), "ArrowRight": (2, 1), "ArrowDown": (1, 1)}[key])
            page.keyboard.press(key)
        ready(page, 8)
        page.keyboard.press("Backspace")
        ready(page, 7)
        assert page.inner_text("#count") == "8 / 20"
        page.click("#choices button:has-text('No difference')")
        expected[7] = (1, 1)
        ready(page, 8)
        link = page.evaluate("document.querySelector('#keys .link').href")
        page.context.close()

        page = visit(viewport={"width": 700, "height": 800})  # another day, another computer, a narrow window
        page.goto(link)
        ready(page, 8)
        assert page.inner_text("#count") == "9 / 20"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert all(box["width"] > 100 and box["y"] + box["height"] <= 800 for box in boxes(page))
        for position in range(8, 20):
            if position == 10:
                page.click("#goon")
            ready(page, position)
            page.click(f"#choices button:has-text('{'Left' if position % 2 else 'Right'}')")
            expected.append((1, 2) if position % 2 else (2, 1))
        page.wait_for_selector("text=Thank you")
        page.goto(organiser)
        assert "20 of 20" in page.inner_text("table")
    store = Store(folder, open_study(folder))
    votes, (observer,) = store.votes(), store.observers()
    store.close()
    assert [vote.answer for vote in votes] == expected
    assert [(vote.region, vote.shown) for vote in votes] == [
        (one.region, one.shown) for one in hand(open_study(folder), observer.slot)
    ]
    assert observer.screen["dark"] + observer.screen["light"] + observer.screen["colour"] == 6
    edited(
        folder, ("anchors_failed = 0.25", "anchors_failed = 1.0"), ("repeats_changed = 0.75", "repeats_changed = 1.0")
    )
    assert ntire("study", "results", folder, "-o", tmp_path / "out").code == 0
    page = visit()
    page.set_content((tmp_path / "out" / "index.html").read_text())
    assert page.locator("svg circle").count() == 3


def boxes(page):
    return [one.bounding_box() for one in page.locator("#stage canvas").all()]


def test_pixels_are_those_of_the_screen_and_panes_move_together(study, visit):
    folder = edited(study("--open", "--crop", 0), SHORT)
    with served(folder) as (_, base, _):
        page = visit(device_scale_factor=1.5, viewport={"width": 1366, "height": 768})
        begin(page, base)
        ready(page, 0)
        drawn = """() => [...document.querySelectorAll("#stage canvas")].map((canvas) => {
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data, inside = [];
          for (let at = 0; at < data.length; at += 4) if (data[at + 3]) inside.push(at / 4);
          const rows = inside.map((at) => Math.floor(at / canvas.width)), columns = inside.map((at) => at % canvas.width);
          const span = (all) => all.reduce((a, b) => Math.max(a, b), 0) - all.reduce((a, b) => Math.min(a, b), 1e9) + 1;
          return [span(columns), span(rows), canvas.width / canvas.getBoundingClientRect().width];
        })"""
        for width, height, ratio in painted(page, drawn):
            assert (width, height) == (72, 72)
            assert ratio == pytest.approx(1.5, abs=0.02)
        page.keyboard.press("+")
        assert page.inner_text("#zoom") == "200 %"
        assert {tuple(one[:2]) for one in painted(page, drawn)} == {(144, 144)}
        for _ in range(5):
            page.keyboard.press("+")
        pixel = """() => [...document.querySelectorAll("#stage canvas")].map((canvas) => [...canvas.getContext("2d")
          .getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data].join())"""
        page.set_viewport_size({"width": 700, "height": 520})  # the pictures are larger than their panes now
        wait_for(lambda: page.evaluate("document.querySelector('#stage canvas').width") < 500)
        before = painted(page, pixel)
        box = boxes(page)[0]
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2 - 130, box["y"] + box["height"] / 2 - 90, steps=4)
        page.mouse.up()
        after = painted(page, pixel)
        assert sum(one != other for one, other in zip(before, after, strict=True)) == 3
        page.keyboard.down(" ")
        assert len(set(painted(page, pixel))) == 1  # the input, in all panes
        page.keyboard.up(" ")
        assert painted(page, pixel) == after
        page.keyboard.press("v")
        assert len(boxes(page)) == 2
        page.keyboard.press("f")
        first = painted(page, pixel)
        page.keyboard.press("f")
        assert painted(page, pixel) != first
        assert math.isclose(boxes(page)[0]["width"], boxes(page)[1]["width"], abs_tol=1)


def test_an_answer_given_without_a_connection_is_sent_when_it_is_back(study, visit):
    folder = edited(study("--open"), SHORT)
    with served(folder) as (_, base, _):
        page = visit()
        begin(page, base)
        ready(page, 0)
        lost = []

        def full(route):
            lost.append(route.request.post_data_json)
            route.fulfill(status=507, json={"problem": "The disk is full."})

        page.route("**/api/vote", full)
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector("text=Your answer is kept here")
        page.unroute("**/api/vote")
        page.reload()
        ready(page, 1)
        assert page.inner_text("#count") == "2 / 16"
        assert lost
