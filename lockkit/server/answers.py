"""Documents as HTTP answers."""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from lockkit.server.problems import HttpProblem, document
from lockkit.views.documents import builtin, plain

__all__ = ["answer", "as_json", "problem_response"]


def as_json(made: msgspec.Struct) -> bytes:
    """A document as JSON. Values that JSON does not support become texts, as in the documents of commands."""
    try:
        return msgspec.json.encode(made, enc_hook=builtin)
    except UnicodeEncodeError:  # half of a surrogate pair, in a note that another program wrote
        return json.dumps(plain(made)).encode()


def answer(made: msgspec.Struct, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The answer with a document."""
    return Response(as_json(made), status, headers, media_type="application/json")


def problem_response(problem: HttpProblem) -> Response:
    """The answer with an error."""
    return answer(document(problem), problem.status, problem.headers)
