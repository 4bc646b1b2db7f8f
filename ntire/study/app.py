"""The web application of a study: the routes of observers and of the organiser behind one guard."""

from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from ntire.study.admin import admin_routes
from ntire.study.guard import Guard
from ntire.study.observing import KINDS, observer_routes
from ntire.study.session import Site
from ntire.study.store import NotStored
from ntire.study.web import not_stored, refused


def application(site: Site, root: str = "") -> Guard:
    """The study as an ASGI application, below the path `root` of a reverse proxy."""
    app = Starlette(
        routes=[*observer_routes(), *admin_routes()], exception_handlers={HTTPException: refused, NotStored: not_stored}
    )
    app.state.site, app.state.static = site, _static_files()
    app.state.pages = pages = Environment(
        loader=PackageLoader("ntire.study"), autoescape=select_autoescape(), trim_blocks=True, lstrip_blocks=True
    )
    pages.globals["questions"] = lambda design: [
        {"name": one.name, "question": one.question} for one in design.criteria
    ]
    return Guard(app, root)


def _static_files() -> dict[str, bytes]:
    """What ships with the application, read once: no path of a request is ever opened."""
    folder = resources.files("ntire.study") / "static"
    return {one.name: one.read_bytes() for one in folder.iterdir() if Path(one.name).suffix in KINDS}
