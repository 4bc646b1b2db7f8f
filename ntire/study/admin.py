"""The organiser's page: how far observers are, whether they agree, whom to leave out, and the end of the study."""

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from ntire.study.agreement import alpha
from ntire.study.answers import by_unit
from ntire.study.keys import same
from ntire.study.session import INVITED, STOPPED, Site
from ntire.study.store import Observer
from ntire.study.web import page, posted, set_cookie

COOKIE = "ntire-admin"
AT_ONCE = 500
"""Invitations that may be added by one click."""
AGREEMENT_SECONDS = 5.0
"""For so long an agreement that was computed is shown again."""


def admin_routes() -> list[Route]:
    """The organiser's pages."""
    return [
        Route("/admin", overview), Route("/admin/{token}", enter),
        Route("/admin/{what}/{number:int}", change, methods=["POST"]), Route("/admin/{what}", switch, methods=["POST"]),
    ]  # fmt: skip


async def enter(request: Request) -> Response:
    """The link that `ntire study serve` prints."""
    site: Site = request.app.state.site
    if not same(request.path_params["token"], site.keys.admin):
        raise HTTPException(404, "There is nothing here.")
    response = RedirectResponse(f"{request.scope['root_path']}/admin", 303)
    set_cookie(request, response, COOKIE, site.keys.admin)
    return response


def _organiser(request: Request) -> Site:
    site: Site = request.app.state.site
    if not same(request.cookies.get(COOKIE, ""), site.keys.admin):
        raise HTTPException(404, "There is nothing here.")
    return site


async def overview(request: Request) -> Response:
    """Everything at a glance."""
    site = _organiser(request)
    shown = await run_in_threadpool(_summary, site)
    links = [(number + 1, str(request.url_for("join", token=token))) for number, token in shown.pop("unused")]
    return page(request, "admin.html", links=links, **shown)


def _summary(site: Site) -> dict[str, Any]:
    observers, length = site.store.observers(), site.design.length
    counted = [one for one in observers if not one.excluded]
    came = {one.name for one in observers}
    return {
        "observers": [(one, one.answered / length, _ago(one)) for one in observers],
        "answered": sum(one.answered for one in counted),
        "finished": sum(one.answered >= length for one in counted),
        "counted": len(counted),
        "agreement": _agreement(site),
        "coverage": _coverage(site),
        "stopped": site.stopped,
        "unused": [
            (number, site.keys.invitation(number)) for number in range(site.invited) if f"invitation {number + 1}" not in came
        ],
    }  # fmt: skip


def _ago(observer: Observer) -> str:
    """How long ago the last vote was, in words."""
    if observer.last is None:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(observer.last)).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "now"


_known: dict[int, tuple[float, list[tuple[str, float | None]]]] = {}


def _agreement(site: Site) -> list[tuple[str, float | None]]:
    """Krippendorff's alpha of each criterion so far, which names no entry; computed every few seconds at most."""
    at, found = _known.get(id(site), (0.0, []))
    if time.monotonic() - at > AGREEMENT_SECONDS or not found:
        left_out = {one.id for one in site.store.observers("excluded IS NOT NULL")}
        votes = [one for one in site.store.votes() if one.observer not in left_out and one.role == "vote"]
        found = []
        for criterion in site.design.criteria:
            table = by_unit([one for one in votes if one.criterion == criterion.name])
            found.append((criterion.name, alpha(table, "ordinal") if table.size else None))
        _known[id(site)] = time.monotonic(), found
    return found


def _coverage(site: Site) -> tuple[int, int]:
    """The fewest and the most votes on a set of entries, whatever the region: equal but for those who have not finished."""
    left_out = {one.id for one in site.store.observers("excluded IS NOT NULL")}
    first = site.design.criteria[0].name
    seen = Counter(
        tuple(sorted(one.shown))
        for one in site.store.votes()
        if one.role == "vote" and one.criterion == first and one.observer not in left_out
    )
    from ntire.study.deck import blocks_of

    counts = np.array(
        [seen[tuple(sorted(block))] for block in blocks_of(len(site.design.entries), site.design.shown_at_once)]
    )
    return int(counts.min()), int(counts.max())


async def change(request: Request) -> Response:
    """Leave an observer out, with a reason, or take that back."""
    site, fields = _organiser(request), await posted(request)
    what, number = request.path_params["what"], request.path_params["number"]
    if what not in ("exclude", "include") or not await run_in_threadpool(site.store.observers, "id = ?", [number]):
        raise HTTPException(404, "There is nothing here.")
    reason = " ".join(fields.get("reason", "").split())[:200] or "by the organiser"
    await run_in_threadpool(site.store.exclude, number, reason if what == "exclude" else None)
    _known.pop(id(site), None)
    return RedirectResponse(f"{request.scope['root_path']}/admin", 303)


async def switch(request: Request) -> Response:
    """Stop the study, open it again, or make more invitations."""
    site, fields = _organiser(request), await posted(request)
    what = request.path_params["what"]
    if what in ("stop", "reopen"):
        await run_in_threadpool(site.store.set_meta, STOPPED, "yes" if what == "stop" else "no")
    elif what == "invite":
        more = fields.get("more", "")
        if not more.isdecimal() or not 1 <= int(more) <= AT_ONCE:
            raise HTTPException(422, f"Expected 1 to {AT_ONCE} more invitations.")
        await run_in_threadpool(site.store.set_meta, INVITED, str(site.invited + int(more)))
    else:
        raise HTTPException(404, "There is nothing here.")
    return RedirectResponse(f"{request.scope['root_path']}/admin", 303)
