"""A browser for a module's tests; what a page says to its console and asks of a network is kept."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)


@dataclass
class Opened:
    """A page, and what it should not have done."""

    page: object
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: Path) -> object:
        self.page.goto(path.as_uri())
        return self.page

    @property
    def beyond(self) -> list[str]:
        """Requests that left the machine's files."""
        return [one for one in self.requests if not one.startswith(("file:", "data:", "blob:"))]


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    sync = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no chromium here")
    with sync.sync_playwright() as play:
        made = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def opened(browser: object) -> Iterator[Opened]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    found = Opened(page)
    page.on("console", lambda said: found.errors.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))
    yield found
    page.close()
