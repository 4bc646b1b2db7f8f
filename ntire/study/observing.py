"""The pages of observers, and what their browsers ask while they judge."""

from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ntire.study.keys import hashed
from ntire.study.session import NAME_LENGTH, Ballot, ScreenCheck, Site, TooSoon
from ntire.study.store import Observer, OutOfTurn
from ntire.study.web import home, page, posted, posted_json, set_cookie

SESSION = "ntire-study"
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
Handler = Callable[[Request], Awaitable[Response]]


def observer_routes() -> list[Route]:
    """The pages of observers."""
    return [
        Route("/", start), Route("/join/{token}", join), Route("/register", register, methods=["POST"]),
        Route("/consent", consent, methods=["POST"]), Route("/check", check, methods=["POST"]), Route("/screen", screen),
        Route("/api/trial", trial), Route("/api/vote", vote, methods=["POST"]), Route("/api/undo", undo, methods=["POST"]),
        Route("/picture/{code}", picture), Route("/static/{name}", static), Route("/health", health),
    ]  # fmt: skip


async def observer_of(request: Request) -> Observer | None:
    """Who asks, by the cookie of the session."""
    site: Site = request.app.state.site
    token = request.cookies.get(SESSION)
    return await run_in_threadpool(site.store.by_token, hashed(token)) if token else None


def observing(handler: Callable[[Request, Observer], Awaitable[Response]]) -> Handler:
    """A handler for those who take part; others are told to use their link."""

    @wraps(handler)
    async def known(request: Request) -> Response:
        observer = await observer_of(request)
        if observer is None:
            raise HTTPException(401, "Please open your invitation link again.")
        return await handler(request, observer)

    return known


async def start(request: Request) -> Response:
    """The page that comes next for whoever asks."""
    site: Site = request.app.state.site
    observer = await observer_of(request)
    if observer is None:
        stopped = await run_in_threadpool(lambda: site.stopped)
        return page(request, "welcome.html", stopped=stopped, name_length=NAME_LENGTH)
    stage = await run_in_threadpool(site.stage, observer)
    return page(request, f"{stage}.html", observer=observer, link=_own_link(request))


def _own_link(request: Request) -> str:
    """The link by which an observer comes back."""
    return str(request.url_for("join", token=request.cookies[SESSION]))


async def join(request: Request) -> Response:
    """An invitation, or the way back on another day or computer."""
    site: Site = request.app.state.site
    token = request.path_params["token"]
    observer = await run_in_threadpool(site.enter, token)
    if observer is None:
        raise HTTPException(
            404, "This link is not valid, or the study is closed. Please ask the organisers for another."
        )
    response = home(request)
    set_cookie(request, response, SESSION, token)
    return response


async def register(request: Request) -> Response:
    """A new observer of an open study."""
    site: Site = request.app.state.site
    name = " ".join((await posted(request)).get("name", "").split())
    if not site.design.access.open or await run_in_threadpool(lambda: site.stopped):
        raise HTTPException(403, "This study takes part by invitation only, or is closed.")
    if not name or len(name) > NAME_LENGTH or not name.isprintable():
        raise HTTPException(422, f"Please enter a name of 1 to {NAME_LENGTH} letters; any name will do.")
    token = await run_in_threadpool(site.register, name)
    if token is None:
        raise HTTPException(403, "Enough people take part already. Thank you!")
    response = home(request)
    set_cookie(request, response, SESSION, token)
    return response


@observing
async def consent(request: Request, observer: Observer) -> Response:
    """Yes, I take part: a hand of trials is dealt."""
    site: Site = request.app.state.site
    await posted(request)
    if await run_in_threadpool(site.stage, observer) == "consent":
        await run_in_threadpool(site.store.consent, observer.id)
    return home(request)


@observing
async def screen(request: Request, observer: Observer) -> Response:
    """The check of the screen once more, as on another computer."""
    site: Site = request.app.state.site
    if await run_in_threadpool(site.stage, observer) not in ("check", "trials"):
        return home(request)
    return page(request, "check.html", observer=observer, link=_own_link(request))


@observing
async def check(request: Request, observer: Observer) -> Response:
    """What the check of the screen found."""
    site: Site = request.app.state.site
    try:
        found = ScreenCheck.model_validate(await posted_json(request))
    except ValidationError:
        raise HTTPException(422, "Expected what the check of the screen finds.") from None
    await run_in_threadpool(site.store.checked, observer.id, found.model_dump())
    return JSONResponse({})


@observing
async def trial(request: Request, observer: Observer) -> Response:
    """What is asked now."""
    site: Site = request.app.state.site
    return JSONResponse(await run_in_threadpool(site.asked, observer))


@observing
async def vote(request: Request, observer: Observer) -> Response:
    """An answer; the reply, which says what is asked next, is sent when it is on the disk."""
    site: Site = request.app.state.site
    try:
        ballot = Ballot.model_validate(await posted_json(request))
    except ValidationError:
        raise HTTPException(422, "Expected an answer.") from None
    if await run_in_threadpool(site.stage, observer) not in ("trials", "done"):
        raise HTTPException(403, "The study is closed, or has not begun for you.")

    def stored() -> dict[str, Any]:
        site.vote(observer, ballot)
        return site.asked(site.store.observer(observer.id))

    try:
        return JSONResponse(await run_in_threadpool(stored))
    except TooSoon:
        raise HTTPException(425, "Please look a little longer.") from None
    except OutOfTurn:
        raise HTTPException(409, "This was answered already, perhaps in another window.") from None
    except ValueError as error:
        raise HTTPException(422, f"{error}.") from None


@observing
async def undo(request: Request, observer: Observer) -> Response:
    """Take the last answer back."""
    site: Site = request.app.state.site
    given = await posted_json(request)
    position = given.get("position") if isinstance(given, dict) else None
    if type(position) is not int or await run_in_threadpool(site.stage, observer) != "trials":
        raise HTTPException(422, "Expected the number of the last answer, while trials are left.")

    def undone() -> dict[str, Any]:
        site.store.undo(observer.id, position)
        return site.asked(site.store.observer(observer.id))

    try:
        return JSONResponse(await run_in_threadpool(undone))
    except OutOfTurn:
        raise HTTPException(409, "Only the last answer can be taken back.") from None


@observing
async def picture(request: Request, observer: Observer) -> Response:
    """A picture of a trial near the one that is asked."""
    site: Site = request.app.state.site

    def data() -> bytes | None:
        path = site.picture(observer, request.path_params["code"])
        return None if path is None else path.read_bytes()

    found = await run_in_threadpool(data)
    if found is None:
        raise HTTPException(404, "There is no such picture.")
    return Response(found, media_type="image/png")


async def static(request: Request) -> Response:
    """A script, a style or an icon."""
    name = request.path_params["name"]
    data = request.app.state.static.get(name)
    if data is None:
        raise HTTPException(404, "There is no such file.")
    headers = {"Cache-Control": "no-cache"}
    return Response(data, media_type=KINDS[Path(name).suffix], headers=headers)


async def health(request: Request) -> Response:
    """For whoever watches the server."""
    return Response("ok\n", media_type="text/plain")
