"""A study that is served by a process of its own, as an organiser would, and observers that are programs."""

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
import time
import uuid
from urllib.parse import unquote

import httpx

CODE = """
import resource, signal, sys
limit = int(sys.argv.pop(1))
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from ntire.cli import main
main()
"""


@contextlib.contextmanager
def served(folder, *words, file_bytes=0):
    """The process and the addresses of observers and of the organiser; `file_bytes` is where every file ends."""
    command = [
        sys.executable,
        "-c",
        CODE,
        str(file_bytes),
        "study",
        "serve",
        str(folder),
        "--port",
        "0",
        *map(str, words),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        observers, organiser = (re.search(r"http\S+", line)[0] for line in lines[:2])
        yield process, observers.rstrip("/"), organiser
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        process.stdout.close()


class WithoutNetwork(httpx.BaseTransport):
    """Hands requests to an application in this process."""

    def __init__(self, app):
        self.app, self.loop = app, asyncio.new_event_loop()

    def handle_request(self, request):
        sent, chunks = [], iter(request.stream)

        async def receive():
            chunk = next(chunks, None)
            return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

        async def send(message):
            sent.append(message)

        headers = [(name.lower(), value) for name, value in request.headers.raw]
        path, _, query = request.url.raw_path.partition(b"?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method, "headers": headers,
            "scheme": request.url.scheme, "path": unquote(path.decode()), "raw_path": path, "query_string": query,
            "client": ("127.0.0.1", 1), "server": (request.url.host, 80), "root_path": "",
        }  # fmt: skip
        self.loop.run_until_complete(self.app(scope, receive, send))
        body = b"".join(one.get("body", b"") for one in sent[1:])
        return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=body)

    def close(self):
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


class Program:
    """An observer that is a program: it knows only what a browser is told."""

    def __init__(self, base, transport=None):
        self.client = httpx.Client(transport=transport, base_url="http://testserver", follow_redirects=True, timeout=30)
        self.base = base

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()

    def page(self, path="/"):
        return self.client.get(self.base + path)

    def form(self):
        return re.search(r'name="form" content="([^"]+)"', self.page().text)[1]

    def submit(self, path, **fields):
        return self.client.post(self.base + path, data={"form": self.form(), **fields})

    def take_part(self, name="Ada", link=None):
        """Register or come by a link, consent, and have the screen checked."""
        if link:
            assert self.client.get(link).status_code == 200
        else:
            assert self.submit("/register", name=name).status_code == 200
        assert self.submit("/consent").status_code == 200
        assert self.send("/check", SCREEN).status_code == 200
        return self

    def send(self, path, value, **headers):
        headers = {"X-Form": self.form(), **headers}
        return self.client.post(self.base + path, json=value, headers=headers)

    def asked(self):
        return self.client.get(f"{self.base}/api/trial").json()

    def ballot(self, asked, ranks=(1, 2), **changes):
        return {
            "position": asked["position"], "nonce": str(uuid.uuid4()), "answers": {"overall": list(ranks)}, "seconds": 3.0,
        } | changes  # fmt: skip


SCREEN = {"width": 1366, "height": 768, "ratio": 1.0, "zoom": 1.0, "dark": 2, "light": 2, "colour": 2}


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
