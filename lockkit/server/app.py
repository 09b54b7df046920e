"""The ASGI application: routes from the table of endpoints, behind the guard."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from lockkit.errors import LockkitError
from lockkit.lib.printable import printable
from lockkit.server.answers import answer, problem_response
from lockkit.server.calls import BODY_BYTES, Call, Endpoint, body_of, query_of
from lockkit.server.endpoints import ENDPOINTS
from lockkit.server.forwarding import Proxies
from lockkit.server.guard import Guard, cookie_of
from lockkit.server.openapi import openapi
from lockkit.server.pages import page_routes, to_the_page
from lockkit.server.problems import HttpProblem, as_problem
from lockkit.server.stores import ServerStores
from lockkit.server.tokens import TokenFile, allows
from lockkit.server.workers import Workers

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from lockkit.sync.client import Client

__all__ = ["Application", "make_app"]

_log = logging.getLogger("lockkit.server")

_BODY_SECONDS: Final = 5.0
STREAM: Final = "text/event-stream"
DESCRIPTION: Final = "/openapi.json"


class Application:
    """An ASGI application, which works without a lifespan: a mounted application gets none.

    Args:
        stores: The stores.
        tokens: The tokens; None: everybody may look, and nobody may change anything.
        hosts: Names by which the server is called, beside those of this host.
        proxies: Addresses and networks of the proxies that are trusted.

    Raises:
        ConfigError: A proxy is no address and no network.
    """

    def __init__(
        self, stores: ServerStores, tokens: TokenFile | None, hosts: Iterable[str], proxies: Iterable[str]
    ) -> None:
        self._proxies = Proxies(proxies)
        self.stores = stores
        self._tokens = tokens
        self._workers = {one: Workers() for one in (None, *(each.id for each in stores.all))}
        routes = [Route(one.path, self._serving(one), methods=[one.method]) for one in ENDPOINTS]
        routes.append(Route(DESCRIPTION, self._describe, methods=["GET"]))
        pages = page_routes()
        routes += pages
        inner = Starlette(
            routes=routes,
            exception_handlers={
                HTTPException: _http_error,
                HttpProblem: _problem,
                LockkitError: _trouble,
                Exception: _broken,
            },
        )
        inner.router.redirect_slashes = False
        open_paths = {one.path for one in ENDPOINTS if one.scope is None} | {DESCRIPTION}
        open_paths |= {one.path for one in pages}
        self._guard = Guard(inner, tokens, hosts, open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "")
        if scope["type"] == "http" and root and scope["path"] == root:
            await to_the_page(root)(scope, receive, send)
            return
        await self._guard(scope, receive, send)

    def close(self) -> None:
        """End all streams. The clients stay open: they belong to the caller."""
        self.stores.close()
        for one in self._workers.values():
            one.close()

    def _serving(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            return await self._serve(endpoint, request)

        return serve

    async def _serve(self, endpoint: Endpoint, request: Request) -> Response:
        if request.method == "HEAD" and endpoint.answer == STREAM:
            raise HttpProblem(
                405, "other_method", "a stream has no end, so HEAD is not answered", headers={"allow": "GET"}
            )
        visitor = request.scope["lockkit.visitor"]
        if endpoint.scope is not None and not allows(visitor.scope, endpoint.scope):
            raise HttpProblem(
                403, "scope", f"this needs the scope {endpoint.scope}, and the token has {visitor.scope}"
            )
        query = query_of(request.query_params.multi_items(), endpoint.query)
        body = None
        if endpoint.body is not None:
            body = body_of(await _body(request), endpoint.body)
        call = Call(
            self.stores,
            self._tokens,
            visitor,
            query,
            body,
            request.path_params,
            self._proxies.sender(request.scope),
            root=request.scope.get("root_path", ""),
            cookie=cookie_of(request.scope),
            last_event=request.headers.get("last-event-id", ""),
            still=lambda: self._still(request),
        )
        handler = endpoint.handler
        if inspect.iscoroutinefunction(handler):
            made = await handler(call)
        else:
            made = await self._of(call).do(lambda: handler(call))
        return made if isinstance(made, Response) else answer(made)

    def _still(self, request: Request) -> bool:
        """Whether the sender of a request may still look."""
        try:
            return self._guard.visitor(request.headers, cookie_of(request.scope)) is not None
        except HttpProblem:
            return False

    def _of(self, call: Call) -> Workers:
        """The threads for a request: those of the store that it is about, if it is about one."""
        about = call.query if call.body is None else call.body
        return self._workers[call.store.id if hasattr(about, "store") else None]

    async def _describe(self, request: Request) -> Response:
        # Everybody may ask for it, and to make it takes a while.
        return Response(
            _description(request.scope.get("root_path", "") or "/"), media_type="application/json"
        )


@functools.lru_cache(4)
def _description(root: str) -> bytes:
    return json.dumps(openapi(ENDPOINTS, root)).encode()


async def _body(request: Request) -> bytes:
    """The body of a request, which may be neither long nor slow."""
    data = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > BODY_BYTES:
                    raise HttpProblem(
                        413,
                        "too_long",
                        f"the body has more than {BODY_BYTES} bytes",
                        headers={"connection": "close"},
                    )
    except (TimeoutError, ClientDisconnect):
        raise HttpProblem(
            408, "too_slow", "the body did not come in time", headers={"connection": "close"}
        ) from None
    return bytes(data)


def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HttpProblem)
    return problem_response(error)


def _trouble(_request: Request, error: Exception) -> Response:
    assert isinstance(error, LockkitError)
    return problem_response(as_problem(error))


def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = {404: "no_such_page", 405: "other_method"}.get(error.status_code, "refused")
    return problem_response(
        HttpProblem(error.status_code, kind, str(error.detail), headers=error.headers or {})
    )


def _broken(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed: %s", request.method, printable(request.url.path), printable(repr(error)))
    return problem_response(HttpProblem(500, "internal", "the server failed; its log says why"))


def make_app(
    clients: Sequence[Client],
    *,
    token_file: str | None = None,
    hosts: Iterable[str] = (),
    proxies: Iterable[str] = (),
) -> Application:
    """Make an ASGI application, to be mounted in another one, or to be served alone.

    Args:
        clients: A client for each store and namespace. They stay yours: close them after the application.
        token_file: The file with the tokens; None for the first client's ``serve.token_file``. Without one,
            anybody may look, and nobody may change anything.
        hosts: Names by which browsers call the application, besides this host's: a proxy's, for instance.
        proxies: Addresses or networks, such as ``10.0.0.0/24``, of proxies whose ``X-Forwarded-For`` and
            ``X-Forwarded-Proto`` count, besides ``serve.proxies``. When mounted, the server names the peer.

    Raises:
        ConfigError: There is no client, two have one store, or the token file or a proxy is invalid.
    """
    stores = ServerStores(clients)
    config = clients[0].config
    file = token_file if token_file is not None else config.serve_token_file
    tokens = None if file is None else TokenFile(file)
    public = () if config.serve_public_url is None else (urlsplit(config.serve_public_url).hostname or "",)
    return Application(
        stores, tokens, (*config.serve_hosts, *public, *hosts), (*config.serve_proxies, *proxies)
    )
