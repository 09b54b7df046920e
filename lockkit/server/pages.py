"""The page of the server: the files of the folder ``page``, which browsers read as they are.

The page has no data. Its scripts ask the endpoints for it, as the visitor, so the files need no token. They
are read once, when the application is made, so that no path in a request becomes a path of the file system.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

__all__ = ["FOLDER", "page_routes", "to_the_page"]

FOLDER: Final = Path(__file__).with_name("page")
"""The files of the page."""
_ALLOWED: Final = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    "form-action 'self'",
)
_POLICY: Final = "; ".join(_ALLOWED)
"""The page's Content-Security-Policy: nothing from elsewhere, no script or style within the markup."""
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FIRST = "index.html"


def page_routes() -> list[Route]:
    """The routes of the page: ``/``, and ``/page/NAME`` for each other file."""
    files = sorted(path for path in FOLDER.iterdir() if path.suffix in _TYPES)
    return [
        Route(
            "/" if path.name == _FIRST else f"/{FOLDER.name}/{path.name}", _File(path).answer, methods=["GET"]
        )
        for path in files
    ]


def to_the_page(root: str) -> Response:
    """The answer to a request without the final slash, against which relative URLs would not resolve."""
    return RedirectResponse(f"{root}/", 308)


class _File:
    """One file, as it was when the application was made."""

    def __init__(self, path: Path) -> None:
        self._data = path.read_bytes()
        self._tag = f'"{hashlib.sha256(self._data).hexdigest()[:20]}"'
        # A browser revalidates its copy each time, so that no page mixes the files of two versions for long.
        self._headers = {
            "cache-control": "no-cache",
            "content-security-policy": _POLICY,
            "content-type": _TYPES[path.suffix],
            "etag": self._tag,
        }

    async def answer(self, request: Request) -> Response:
        """The file, or that the browser's copy is still the same."""
        known = [
            tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")
        ]
        if self._tag in known or "*" in known:
            return Response(status_code=304, headers=self._headers)
        return Response(self._data, headers=self._headers)
