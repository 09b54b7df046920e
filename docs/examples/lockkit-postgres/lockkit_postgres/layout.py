"""The schema: the first client that may creates it. A schema of an unknown layout is never touched."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lockkit.errors import IncompatibleLayout, PermissionDenied
from lockkit.store.spi import Refused, Unknown
from lockkit_postgres.failures import too_new
from lockkit_postgres.pool import Connections

__all__ = ["READER", "prepare"]

READER = 1
"""The newest layout that this version understands."""
_SCHEMA = Path(__file__).with_name("schema.sql")


def prepare(pool: Connections, namespace: str, end: float) -> dict[str, Any]:
    """Create the schema if it is missing; return its description of itself.

    Raises:
        Refused, Unknown: The schema is missing and cannot be created, or it is too new.
    """
    try:
        hello = _hello(pool, namespace, end)
    except Refused as error:
        if not isinstance(error.error, IncompatibleLayout):
            raise
        _make(pool, end)
        hello = _hello(pool, namespace, end)
    if hello["min_reader"] > READER:
        raise too_new(pool.address.shown, hello["version"])
    return hello


def _hello(pool: Connections, namespace: str, end: float) -> dict[str, Any]:
    hello: dict[str, Any] = pool.call(max(end - time.monotonic(), 0.0), "hello", namespace)[0]
    return hello


def _make(pool: Connections, end: float) -> None:
    script = _SCHEMA.read_text().replace(':"schema"', f'"{pool.address.schema}"')
    try:
        pool.ask(max(end - time.monotonic(), 0.0), script)
    except Refused as error:
        if isinstance(error.error, PermissionDenied):
            text = (
                f"{pool.address.shown}: there is no schema {pool.address.schema}, and this user may not "
                "create it"
            )
            hint = f"have the database's owner run: psql -v schema={pool.address.schema} -f {_SCHEMA}"
            raise Refused(PermissionDenied(text, hint=hint), retry=False) from error
        raise
    except Unknown:
        pass  # another client, or this call without an answer, may have created it: the next look shows it
