"""What holds for every request and answer, whatever page it is: sizes, origins, headers, and the path of a reverse proxy."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 16 * 1024
"""Bytes of a form or a vote."""
MOST_PATH = 512
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}  # fmt: skip
"""Nothing from elsewhere, nothing elsewhere, nothing kept: a cached picture would come sooner the second time."""


class Guard:
    """Around the application."""

    def __init__(self, app: ASGIApp, root: str = "") -> None:
        """`root` is the path below which a reverse proxy shows the study, such as "/study"; empty for none."""
        self.app, self.root = app, root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope = dict(scope) | {"root_path": self.root, "path": self._path(scope["path"])}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            await refused(scope, receive, answer)
            return
        await self._limited(scope, receive, answer)

    def _path(self, path: str) -> str:
        """With the root in front, whether or not the proxy has taken it away."""
        below = path == self.root or path.startswith(f"{self.root}/")
        return path if below or not self.root else self.root + path

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        if len(scope["path"]) > MOST_PATH or len(scope.get("query_string", b"")) > MOST_PATH:
            return PlainTextResponse("The address is too long.", 414)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("Only GET and POST are answered.", 405, {"Allow": "GET, HEAD, POST"})
        if scope["method"] == "POST":
            site, origin = headers.get("sec-fetch-site"), headers.get("origin")
            foreign = site not in ("same-origin", "none") if site else origin not in (None, *_own_origins(headers))
            if foreign:
                return PlainTextResponse("This was sent from another site.", 403)
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length) > MOST_BODY:
                return PlainTextResponse(f"At most {MOST_BODY} bytes are taken.", 413)
        return None

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, with a body of at most MOST_BODY whatever its header says."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > MOST_BODY:
                raise HTTPException(413, f"At most {MOST_BODY} bytes are taken.")
            return message

        await self.app(scope, counted, send)


def _own_origins(headers: Headers) -> tuple[str, ...]:
    hosts = {headers.get("host", ""), headers.get("x-forwarded-host", "")} - {""}
    return tuple(f"{scheme}://{host}" for host in hosts for scheme in ("http", "https"))
