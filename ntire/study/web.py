"""What the pages of observers and of the organiser share: templates, cookies, and forms that no other site can send."""

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from ntire.study.design import SCALE
from ntire.study.keys import new_token, same
from ntire.study.session import Site

VISIT = "ntire-visit"
HALF_A_YEAR = 180 * 24 * 3600
FULL = "The server cannot store anything now: its disk is full or fails. Please tell the organisers."


def page(request: Request, name: str, status: int = 200, **values: Any) -> Response:
    """A page of a template. Whoever has no visit yet gets one, to which its forms belong."""
    site: Site = request.app.state.site
    visit = request.cookies.get(VISIT) or new_token()
    shown = {"design": site.design, "root": request.scope["root_path"], "form": site.keys.form(visit), "scale": SCALE}
    text = request.app.state.pages.get_template(name).render(shown | values)
    response = HTMLResponse(text, status)
    if VISIT not in request.cookies:
        set_cookie(request, response, VISIT, visit)
    return response


def set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    """One that scripts cannot read and other sites' forms do not send."""
    response.set_cookie(
        name, value, max_age=HALF_A_YEAR, path=request.scope["root_path"] or "/", httponly=True, samesite="lax",
        secure=request.url.scheme == "https",
    )  # fmt: skip


def home(request: Request) -> RedirectResponse:
    """Back to the page that comes next."""
    return RedirectResponse(f"{request.scope['root_path']}/", 303)


def check_form(request: Request, given: object) -> None:
    """Raises HTTPException unless a form was made for this visit: no other site can send one."""
    site: Site = request.app.state.site
    visit = request.cookies.get(VISIT, "")
    if not visit or not isinstance(given, str) or not same(given, site.keys.form(visit)):
        raise HTTPException(403, "This page is too old, or cookies are blocked. Reload it and try again.")


async def posted(request: Request) -> dict[str, str]:
    """The fields of a form of ours."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise HTTPException(415, "Expected a form.")
    fields = {name: value for name, value in (await request.form(max_fields=20)).items() if isinstance(value, str)}
    check_form(request, fields.get("form"))
    return fields


async def posted_json(request: Request) -> Any:
    """What a script of ours has sent."""
    if request.headers.get("content-type") != "application/json":
        raise HTTPException(415, "Expected JSON.")
    check_form(request, request.headers.get("x-form"))
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise HTTPException(400, "Expected JSON, found something else.") from None


async def refused(request: Request, error: Exception) -> Response:
    """A mistake, in words; for scripts as JSON."""
    assert isinstance(error, HTTPException)
    if "/api/" in request.scope["path"] or request.headers.get("content-type") == "application/json":
        return JSONResponse({"problem": error.detail}, error.status_code)
    words = {404: "There is nothing here.", 405: "That cannot be done here."}
    told = words.get(error.status_code, "") if error.detail in ("Not Found", "Method Not Allowed") else error.detail
    return page(request, "refused.html", error.status_code, told=told)


async def not_stored(request: Request, error: Exception) -> Response:
    """Nothing was acknowledged: the browser keeps the answer and sends it again."""
    if "/api/" in request.scope["path"]:
        return JSONResponse({"problem": FULL}, 507)
    return page(request, "refused.html", 507, told=FULL)
