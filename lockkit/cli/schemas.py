"""The shape of every JSON document that the command line writes, as JSON Schema (2020-12).

``python -m lockkit.cli.docs`` writes them to docs/schema. They grow only by properties, so a reader must allow for more
than they name; lists are always lists, and what is absent is null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["SCHEMAS"]

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
TIME: Schema = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$",
}
VALUE: Schema = {"anyOf": [TEXT, NUMBER, FLAG, {"type": "array", "items": TEXT}, {"type": "null"}]}
CLAIM_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{12}$"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _at(name: str, *, null: bool = False) -> dict[str, Schema]:
    """A time, twice: RFC 3339 in UTC, and seconds since the epoch."""
    both = {name: TIME, f"{name}_seconds": NUMBER}
    return {key: _or_null(schema) for key, schema in both.items()} if null else both


STORE = _object(url=TEXT, source=TEXT, namespace=TEXT)
OWNER = _object(
    user=TEXT,
    host=TEXT,
    pid=WHOLE,
    boot_id=TEXT,
    program=TEXT,
    pod=_or_null(TEXT),
    task=_or_null(TEXT),
    version=TEXT,
)
CLAIM = _object(
    name=TEXT,
    claim_id=CLAIM_ID,
    state={"enum": ["WAITING", "OFFERED", "HELD", "LINGERING"]},
    kind={"enum": ["mutex", "semaphore", "read", "write"]},
    position=WHOLE,
    weight=WHOLE,
    capacity=WHOLE,
    fence=WHOLE,
    owner=OWNER,
    **_at("since"),
    **_at("renewed", null=True),
    **_at("deadline", null=True),
    ttl_seconds=NUMBER,
    process_bound=FLAG,
    evicted=FLAG,
    alive=_or_null(FLAG),
    evidence=TEXT,
    note={"type": "object"},
)
LOCK = _object(
    name=TEXT,
    state={"enum": ["held", "lingering", "waiting", "free"]},
    capacity=_or_null(WHOLE),
    holders=_list(CLAIM),
    waiters=_list(CLAIM),
    **_at("read_at"),
)
LAYER = _object(
    layer={"enum": ["cleanup", "normal", "emergency"]},
    outcome=TEXT,
    duration_seconds=NUMBER,
    error=_or_null(TEXT),
    hooks=_list(_object(plugin=TEXT, outcome=TEXT, duration_seconds=NUMBER, error=_or_null(TEXT))),
)
RELEASE = _object(
    outcome={"enum": ["RELEASED", "LOST", "ABANDONED", "KEPT"]},
    reason=TEXT,
    **_at("expires_by", null=True),
    layers=_list(LAYER),
)
ERROR = _object(
    schema={"const": "lockkit.error/1"},
    error=TEXT,
    message=TEXT,
    name=_or_null(TEXT),
    holder=_or_null(CLAIM),
    hint=_or_null(TEXT),
    exit_code=WHOLE,
)
FINDING = _object(
    check=TEXT, severity={"enum": ["ok", "warning", "error"]}, message=TEXT, hint=_or_null(TEXT)
)
FAILURE: Schema = {
    "type": "object",
    "properties": {"id": TEXT, "at": TEXT, "resolved": TEXT, "resolved_by": TEXT},
    "required": ["at", "id"],
}

_BODIES: Mapping[str, tuple[str, Schema]] = {
    "acquire": (
        "A hold that lockkit acquire left standing. `token` is there only with --print-token.",
        _object(
            store=STORE,
            name=TEXT,
            claim_id=CLAIM_ID,
            fence=WHOLE,
            ttl_seconds=NUMBER,
            **_at("acquired"),
            **_at("deadline"),
            handle=_or_null(TEXT),
        ),
    ),
    "config": (
        "Every setting, its value (null: not stated), and where it came from.",
        _object(settings=_list(_object(key=TEXT, value=VALUE, source=TEXT))),
    ),
    "config-init": ("The configuration file that was written.", _object(file=TEXT)),
    "demo": (
        "What the demo checked. Seconds are CLOCK_BOOTTIME; a holder was certain from start to sure.",
        _object(
            ok=FLAG,
            checks=_list(_object(check=TEXT, ok=FLAG, message=TEXT)),
            holds=_list(
                _object(
                    worker=TEXT,
                    start_seconds=NUMBER,
                    sure_seconds=NUMBER,
                    fence=WHOLE,
                    end={"enum": ["released", "lost", "killed"]},
                )
            ),
        ),
    ),
    "doctor": (
        "Findings about configuration, store and plugins.",
        _object(store=_or_null(STORE), findings=_list(FINDING)),
    ),
    "error": ("Why a command failed; one line on stderr.", ERROR),
    "evict": (
        "What an eviction did.",
        _object(
            store=STORE,
            name=TEXT,
            claim_id=TEXT,
            outcome={"enum": ["MARKED", "REMOVED"]},
            **_at("blocks_until", null=True),
            claim=_or_null(CLAIM),
            reason=TEXT,
            now=FLAG,
        ),
    ),
    "explain": (
        "A lock, and the sentences about it.",
        _object(store=STORE, lock=LOCK, sentences=_list(TEXT)),
    ),
    "failure": ("One failed release.", _object(failure=FAILURE)),
    "failures": ("Failed releases, oldest first.", _object(failures=_list(FAILURE))),
    "findings": ("Findings about the configuration.", _object(findings=_list(FINDING))),
    "held": (
        "Whether a hold of lockkit acquire stands.",
        _object(store=STORE, name=TEXT, held=FLAG, claims=_list(_object(claim_id=CLAIM_ID, fence=WHOLE))),
    ),
    "log": (
        'A log line (log_format = "json"); more properties are the record\'s own.',
        _object(**_at("at"), level=TEXT, logger=TEXT, message=TEXT),
    ),
    "notice": (
        "Something that run says beside its command, or acquire beside its error; a line on stderr.",
        _object(name=TEXT, message=TEXT),
    ),
    "plugins": (
        "Every plugin, loaded or not.",
        _object(
            plugins=_list(
                _object(
                    name=TEXT,
                    dist=_or_null(TEXT),
                    version=_or_null(TEXT),
                    source={"enum": ["store", "installed", "code"]},
                    hooks=_list(TEXT),
                    import_seconds=_or_null(NUMBER),
                    disabled=FLAG,
                    error=_or_null(TEXT),
                )
            )
        ),
    ),
    "release": (
        "A release of a hold of lockkit acquire.",
        _object(store=STORE, name=TEXT, claim_id=CLAIM_ID, release=RELEASE),
    ),
    "resize": (
        "A new capacity, and how many claims it was written to.",
        _object(store=STORE, name=TEXT, capacity=WHOLE, claims=WHOLE),
    ),
    "run": (
        "The --report of lockkit run.",
        _object(
            name=TEXT,
            program=TEXT,
            store=_or_null(STORE),
            **_at("started"),
            waited_seconds=_or_null(NUMBER),
            waits=WHOLE,
            claim_id=_or_null(CLAIM_ID),
            fence=_or_null(WHOLE),
            **_at("acquired", null=True),
            held_seconds=_or_null(NUMBER),
            exit_code=WHOLE,
            command_exit_code=_or_null(WHOLE),
            command_signal=_or_null(WHOLE),
            lost=_or_null(TEXT),
            evicted=_or_null(_object(by=TEXT, reason=TEXT)),
            release=_or_null(RELEASE),
            error=_or_null(ERROR),
        ),
    ),
    "status": (
        "Locks with their holders and waiters; `unread` are those that this user may not read, or this lockkit cannot.",
        _object(
            store=STORE,
            **_at("read_at"),
            locks=_list(LOCK),
            unread=_list(_object(name=TEXT, error=TEXT, message=TEXT, hint=_or_null(TEXT))),
        ),
    ),
    "wait": (
        "A lock that has become free.",
        _object(store=STORE, name=TEXT, free=FLAG, waited_seconds=NUMBER),
    ),
    "waiting": (
        "How a wait of lockkit run or acquire stands; a line on stderr.",
        _object(store=STORE, name=TEXT, position=WHOLE, waited_seconds=NUMBER, holder=_or_null(CLAIM)),
    ),
}


def _whole(name: str, text: str, body: Schema) -> Schema:
    properties = {"schema": {"const": f"lockkit.{name}/1"}, **body["properties"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"lockkit.{name}/1",
        "description": text,
        "type": "object",
        "properties": properties,
        "required": sorted({*body["required"], "schema"}),
    }


SCHEMAS: Mapping[str, Schema] = {
    name: _whole(name, text, body) for name, (text, body) in sorted(_BODIES.items())
}
"""Schema by the document's name: ``status`` for ``lockkit.status/1``."""
