"""Health, locks, GPUs and operations over HTTP: an ASGI application, for ``lockkit serve`` or to be mounted.

from lockkit.server import make_app
application.mount("/locks", make_app([lockkit.connect()], hosts=["intranet.example"]))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lockkit.server.app import make_app

__all__ = ["make_app"]


def __getattr__(name: str) -> object:
    """Import the application when it is first used: its libraries are those of the extra ``server``."""
    if name != "make_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lockkit.server.app import make_app

    return make_app
