"""The first checks of every request: limits, the Host header, writes from other sites, and the token.

Another site's page may make a browser send requests here, even by a name of its own (DNS rebinding). So Host
must be a known name or an address, and a request for a change must come from this server's page or a program.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from lockkit.server.answers import problem_response
from lockkit.server.problems import HttpProblem
from lockkit.server.tokens import TokenFile, Visitor, how_to_make

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ANYBODY", "Guard", "cookie_of", "may_come_from", "names_of_this_host"]

ANYBODY: Final = Visitor("anybody", "view")
"""The sender of a request to a server without tokens, who may only look."""
_COOKIE: Final = "lockkit-session"
_QUERY = 4096
"""Bytes of a query."""
_PATH = 2048
_HEADS = 16 * 1024
"""Bytes of all headers."""
_ONCE = (
    "authorization",
    "content-length",
    "content-type",
    "host",
    "origin",
    "sec-fetch-site",
    "transfer-encoding",
)
"""Headers that may occur only once: a proxy may decide by another one of them than this server."""
_COOKIES = 4
"""Cookies of this server's name that are tried."""
_READS = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Headers of every answer that does not have its own."""


def names_of_this_host() -> frozenset[str]:
    """The names by which a browser may call this host."""
    name = socket.gethostname().lower()
    return frozenset({"localhost", name, name.partition(".")[0]})


def host_in(header: str) -> str:
    """The host of a Host header or an origin without port, in lower case; empty if there is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def may_be_called(header: str, hosts: Collection[str]) -> bool:
    """Whether a Host header is a known name or an address. Another site's name is never an address."""
    host = host_in(header)
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host in hosts
    return True


def may_come_from(headers: Headers, hosts: Collection[str], *, by_cookie: bool) -> bool:
    """Whether a request for a change comes from a page of this server or a program.

    Args:
        headers: The headers. In Origin and Sec-Fetch-Site a browser names the page, which cannot change them.
        hosts: The names of this server, as a proxy in front of it may have another one.
        by_cookie: Whether a browser sent a cookie with it. Then it must name its origin.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site not in (None, "same-origin", "none"):
        return False
    if origin is None:
        return not by_cookie or site == "same-origin"
    try:
        there = urlsplit(origin)
    except ValueError:
        return False
    if not there.netloc:
        return False  # "null": a sandbox, a file
    return there.netloc.lower() == headers.get("host", "").lower() or host_in(there.netloc) in hosts


class Guard:
    """The application behind the checks.

    Args:
        app: The application.
        tokens: The tokens; None: everybody may look, and nobody may change anything.
        hosts: Names by which the server may be called, in addition to those of this host and to addresses.
        open_paths: Paths that need no token.
    """

    def __init__(
        self, app: ASGIApp, tokens: TokenFile | None, hosts: Iterable[str], open_paths: Collection[str]
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._own = frozenset(host.lower() for host in hosts)
        self._hosts = self._own | names_of_this_host()
        self._open = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no websockets: the server of the application closes the connection

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            scope["lockkit.visitor"] = self._checked(scope)
        except HttpProblem as problem:
            await problem_response(problem)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _checked(self, scope: Scope) -> Visitor | None:
        """The sender of a request that may pass; None if it has no token and needs none."""
        headers = Headers(scope=scope)
        if len(scope["query_string"]) > _QUERY or len(scope.get("raw_path") or scope["path"]) > _PATH:
            raise HttpProblem(414, "too_long", f"the query has more than {_QUERY} bytes, or the path {_PATH}")
        if sum(len(name) + len(value) for name, value in scope["headers"]) > _HEADS:
            raise HttpProblem(431, "too_long", f"the headers have more than {_HEADS} bytes")
        twice = next((name for name in _ONCE if len(headers.getlist(name)) > 1), None)
        if twice is not None or ("content-length" in headers and "transfer-encoding" in headers):
            raise HttpProblem(
                400,
                "bad_headers",
                f"the header {twice} stands twice"
                if twice
                else "the length of the body is given in two ways",
                headers={"connection": "close"},
            )
        if not may_be_called(headers.get("host", ""), self._hosts):
            raise HttpProblem(
                421,
                "unknown_host",
                "the Host header has a name that this server does not know",
                hint="add the name to serve.hosts in the configuration",
            )
        visitor = self.visitor(headers, cookie_of(scope))
        if scope["method"] not in _READS:
            self._check_write(headers, visitor)
        relative = scope["path"].removeprefix(scope.get("root_path", ""))
        if visitor is None and relative not in self._open:
            raise HttpProblem(
                401,
                "no_token",
                "this needs a token",
                hint="send Authorization: Bearer TOKEN",
                headers={"www-authenticate": "Bearer"},
            )
        return visitor

    def visitor(self, headers: Headers, cookie_name: str) -> Visitor | None:
        """The sender, by token or cookie; None if the server has tokens and this request has none of them.

        Raises:
            HttpProblem: The request has an Authorization that is wrong.
        """
        kind, _, token = headers.get("authorization", "").partition(" ")
        given = kind.lower() == "bearer"  # another kind may be meant for a proxy in front of this server
        if self._tokens is None:
            if given:
                raise _wrong("this server has no tokens")
            return ANYBODY
        if given:
            visitor = self._tokens.visitor(token.strip())
            if visitor is None:
                raise _wrong("the token is not known")
            return visitor
        for cookie in islice(_cookies(headers, cookie_name), _COOKIES):
            visitor = self._tokens.signed_in(cookie, time.time())
            if visitor is not None:
                return visitor
        return None

    def _check_write(self, headers: Headers, visitor: Visitor | None) -> None:
        if not may_come_from(headers, self._own, by_cookie=visitor is not None and visitor.by_cookie):
            raise HttpProblem(403, "other_site", "the request comes from a page of another site")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise HttpProblem(
                415,
                "not_json",
                "a request that changes something must have a body of JSON",
                hint="send Content-Type: application/json",
            )
        if self._tokens is None:
            raise HttpProblem(
                403,
                "view_only",
                "this server has no tokens, so it only shows",
                hint=f"to make one, and start the server again: {how_to_make()}",
            )


def _wrong(message: str) -> HttpProblem:
    return HttpProblem(
        401, "wrong_token", message, headers={"www-authenticate": 'Bearer error="invalid_token"'}
    )


def cookie_of(scope: Scope) -> str:
    """The name of the cookie, with the server's port: a browser sends the cookies of a host to all ports."""
    port = (scope.get("server") or (None, None))[1]
    return _COOKIE if port is None else f"{_COOKIE}-{port}"


def _cookies(headers: Headers, name: str) -> Iterator[str]:
    """Cookies that may be this server's. A program at another port of the host can set one of the same name.

    ``http.cookies`` takes quadratic time on a stranger's input, and gives up at other programs' cookies.
    """
    for one in ";".join(headers.getlist("cookie")).split(";"):
        called, _, value = one.strip().partition("=")
        if called == name:
            yield value
