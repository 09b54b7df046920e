"""A web application: one request at a time for each account, over all workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

import lockkit

client = lockkit.connect()  # may come before the fork: each worker opens a connection of its own


def application(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    account = environ["PATH_INFO"].strip("/")
    try:
        with client.lock(f"account:{account}").acquire(timeout=5) as lease:
            status, body = "200 OK", charge(account, lease.fence)
    except lockkit.AcquireTimeout:
        status, body = "503 Service Unavailable", "busy, try again"
    start_response(status, [("Content-Type", "text/plain")])
    return [body.encode()]


def charge(account: str, fence: int) -> str:
    time.sleep(0.2)  # the work
    return f"{account} {fence} {os.getpid()}"
