"""Requests as the handlers of endpoints see them, and the table of endpoints they are described in."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import msgspec
from starlette.responses import Response

from lockkit.lib.namedtuples import NamedTuple
from lockkit.server.documents import NoQuery
from lockkit.server.problems import HttpProblem

if TYPE_CHECKING:
    from lockkit.server.forwarding import Sender
    from lockkit.server.stores import ServerStore, ServerStores
    from lockkit.server.tokens import Scope, TokenFile, Visitor

__all__ = ["BODY_BYTES", "Call", "Endpoint", "Handler", "body_of", "query_of"]

S = TypeVar("S", bound=msgspec.Struct)
BODY_BYTES = 16 * 1024
"""The most bytes of a body."""


class Call(NamedTuple):
    """One request.

    Attributes:
        stores: The stores of the server.
        tokens: The tokens; None: there are none.
        visitor: The sender.
        query: The parameters, as the struct that the endpoint names.
        body: The body, as the struct that the endpoint names; None if it names none.
        path: The parameters of the path.
        sender: Where it comes from.
        root: The prefix under which the application is mounted.
        cookie: The name of the server's cookie.
        still: Whether the sender's token still counts; for an answer that lasts.
        last_event: The id of the last event that a stream had before it broke; empty if none.
    """

    stores: ServerStores
    tokens: TokenFile | None
    visitor: Visitor | None
    query: Any
    body: Any
    path: Mapping[str, str]
    sender: Sender
    root: str = ""
    last_event: str = ""
    cookie: str = ""
    still: Callable[[], bool] = lambda: True

    @property
    def store(self) -> ServerStore:
        """The store that is meant, by the body or the query."""
        meant = getattr(self.body if self.body is not None else self.query, "store", None)
        return self.stores.find(meant)


Handler: TypeAlias = (
    Callable[[Call], msgspec.Struct | Response]
    | Callable[[Call], Coroutine[None, None, msgspec.Struct | Response]]
)


class Endpoint(NamedTuple):
    """One endpoint: the source of the routes, the OpenAPI document and the reference page.

    Attributes:
        method: GET or POST.
        path: The path, with ``{uuid}`` for a parameter.
        scope: The scope that is needed; None: anybody may call it.
        meaning: A sentence for the reference.
        answer: The struct of the answer, or its media type.
        handler: The function that answers. It may block, on a thread. A coroutine function must not: it runs
            on the event loop, and so answers however much there is to do.
        query: The struct of the parameters.
        body: The struct of the body.
        statuses: The statuses of answers that are errors, beside those that every endpoint may have.
        example: A value for each parameter of the path, for the OpenAPI document.
        ok: Statuses of answers with the document.
    """

    method: Literal["GET", "POST"]
    path: str
    scope: Scope | None
    meaning: str
    answer: type[msgspec.Struct] | str
    handler: Handler
    query: type[msgspec.Struct] = NoQuery
    body: type[msgspec.Struct] | None = None
    statuses: tuple[int, ...] = ()
    example: Mapping[str, str] = {}
    ok: tuple[int, ...] = (200,)


def query_of(items: list[tuple[str, str]], struct: type[S]) -> S:
    """The parameters of a query.

    Raises:
        HttpProblem: A parameter is not known, occurs twice, or has a value that is not allowed.
    """
    given: dict[str, str] = {}
    for key, value in items:
        if key in given:
            raise HttpProblem(400, "bad_query", f"the parameter {key!r} stands twice")
        given[key] = value
    try:
        made = msgspec.convert(given, struct, strict=False)
    except msgspec.ValidationError as error:
        raise HttpProblem(400, "bad_query", _told(error), hint=_fields(struct)) from None
    # msgspec takes the text null for None.
    nothing = next((key for key in given if getattr(made, key, None) is None), None)
    if nothing is not None:
        raise HttpProblem(
            400, "bad_query", f"the parameter {nothing!r} may not be null", hint=_fields(struct)
        )
    return made


def body_of(data: bytes, struct: type[S]) -> S:
    """The body of a request.

    Raises:
        HttpProblem: The body is no JSON, or does not fit.
    """
    try:
        return msgspec.json.decode(data, type=struct)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise HttpProblem(400, "bad_body", _told(error), hint=_fields(struct)) from None


def _told(error: Exception) -> str:
    return str(error).replace("`", "'")


def _fields(struct: type[msgspec.Struct]) -> str:
    names = [field.encode_name for field in msgspec.structs.fields(struct)]
    return f"allowed: {', '.join(names)}" if names else "no parameters are allowed"
