"""The OpenAPI document, made from the table of endpoints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from lockkit._version import __version__
from lockkit.server.calls import Endpoint
from lockkit.server.documents import Problem
from lockkit.views.components import schema_components

__all__ = ["STATUSES", "openapi", "parameters_of"]

STATUSES = {
    200: "The answer",
    400: "A parameter or the body is not allowed",
    401: "There is no token, or a wrong one",
    403: "The token has not the scope that is needed, or the request comes from another site",
    404: "There is no such thing",
    405: "The method is another one",
    408: "The body does not come",
    409: "What was seen is no longer there, or is another's by now; nothing was changed",
    413: "The body is too long",
    414: "The query is too long",
    415: "The body is not announced as JSON",
    421: "The Host header has an unknown name",
    431: "The headers are too long",
    501: "The store or this server cannot do that",
    502: "The store refuses this server",
    503: "The store does not answer, or the server is busy",
    504: "The answer took too long; a change may have been made",
    507: "The audit record cannot be written; nothing was changed",
}
"""The statuses of answers, with their meaning."""
_ANY = (400, 401, 403, 404, 414, 421, 431, 501, 502, 503, 504)
_WRITES = (408, 409, 413, 415, 507)


def openapi(endpoints: Sequence[Endpoint], server: str = "/") -> dict[str, Any]:
    """The document, in OpenAPI 3.1."""
    structs: list[type[msgspec.Struct]] = [Problem]
    for one in endpoints:
        structs += [each for each in (one.body, one.answer) if isinstance(each, type)]
    parts = schema_components(structs, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lockkit serve",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": parts,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def parameters_of(one: Endpoint) -> list[str]:
    """The names of the parameters, or of the body's properties; optional ones end with a question mark."""
    return [
        f"{field.encode_name}{'' if field.required else '?'}"
        for field in msgspec.structs.fields(one.query if one.body is None else one.body)
    ]


def _operation(one: Endpoint) -> dict[str, Any]:
    statuses = {*_ANY, *one.statuses, *(_WRITES if one.method == "POST" else ())} - {*one.ok}
    made: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{one.method.lower()}{one.path}").rstrip("_"),
        "summary": one.meaning,
        "responses": {
            **{str(status): _answer(one) for status in one.ok},
            **{str(status): _json(STATUSES[status], Problem) for status in sorted(statuses)},
        },
    }
    parameters = [*_path_parameters(one), *_query_parameters(one)]
    if parameters:
        made["parameters"] = parameters
    if one.body is not None:
        made["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(one.body)}},
        }
    if one.scope is None:
        made["security"] = []
    return made


def _answer(one: Endpoint) -> dict[str, Any]:
    if isinstance(one.answer, str):
        return {"description": one.meaning, "content": {one.answer: {"schema": {"type": "string"}}}}
    return _json(one.meaning, one.answer)


def _json(meaning: str, struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {"description": meaning, "content": {"application/json": {"schema": _ref(struct)}}}


def _ref(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{struct.__name__}"}


def _path_parameters(one: Endpoint) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$"},
            "example": one.example.get(name, name),
        }
        for name in re.findall(r"{(\w+)", one.path)
    ]


def _query_parameters(one: Endpoint) -> list[dict[str, Any]]:
    schema = msgspec.json.schema(one.query)
    fields = schema["$defs"][one.query.__name__]
    return [
        {
            "name": name,
            "in": "query",
            "required": name in fields.get("required", ()),
            "schema": _plain(field),
        }
        for name, field in fields["properties"].items()
    ]


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter. Optional ones are null in the struct, but no text in a query is null."""
    field = dict(field)
    options = [each for each in field.pop("anyOf", ()) if each != {"type": "null"}]
    if "enum" in field:
        field["enum"] = [each for each in field["enum"] if each is not None]
    if field.get("default", ...) is None:
        del field["default"]
    return {**(options[0] if options else {}), **field}
