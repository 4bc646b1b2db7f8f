"""`ntire study serve`: one process that serves a study until it is told to end."""

import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from ntire import UserError
from ntire.study.app import application
from ntire.study.design import open_study
from ntire.study.keys import Keys
from ntire.study.session import Site
from ntire.study.store import Store

LOCK = "serving.lock"
AT_ONCE = 2000
"""Connections; more are told to come back."""
BACKLOG = 1024
"""Connections that wait to be taken."""


def open_site(folder: Path) -> Site:
    """A study, ready to be served. Raises UserError for one that is broken or is being served already."""
    design = open_study(folder)
    keys = Keys(folder)
    _only_one(folder)
    return Site(folder, design, Store(folder, design), keys)


def _only_one(folder: Path) -> None:
    """Hold a lock for as long as this process lives."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise UserError(f"{folder}: is being served by another process already.") from None


def root_of(path: str) -> str:
    """The path below which a proxy shows the study, without a slash at its end. Raises UserError for what is none."""
    root = path.rstrip("/")
    if root and (not root.startswith("/") or not all(c.isalnum() or c in "/-_." for c in root) or ".." in root):
        raise UserError(f"--root-path {path}: expected a path such as /study, found something else.")
    return root


def serve(folder: Path, host: str, port: int, root: str, told: Callable[[Site, int], None]) -> None:
    """Serve until SIGINT or SIGTERM; `told` gets the site and the port when it answers, as port 0 takes any.

    Raises UserError for an address that is not to be had.
    """
    try:
        bound = _bound(host, port)
    except OSError as error:
        raise UserError(f"{host}:{port}: cannot be listened at: {error.strerror or error}. Choose --port.") from None
    with bound:
        site = open_site(folder)
        try:
            told(site, bound.getsockname()[1])
            uvicorn.Server(_config(site, root)).run(sockets=[bound])
        finally:
            site.store.close()


def _config(site: Site, root: str) -> uvicorn.Config:
    return uvicorn.Config(
        application(site, root), log_level="warning", access_log=False, server_header=False, date_header=False,
        limit_concurrency=AT_ONCE, timeout_keep_alive=30, timeout_graceful_shutdown=5, proxy_headers=True,
        forwarded_allow_ips="127.0.0.1", lifespan="off", ws="none", backlog=BACKLOG,
    )  # fmt: skip


def _bound(host: str, port: int) -> socket.socket:
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    found = socket.socket(family, kind, proto)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
        # From now on a connection waits until it is answered: whoever reads the address may go there at once.
        found.listen(BACKLOG)
    except OSError:
        found.close()
        raise
    return found
