"""The undocumented parts of redis-py and hiredis that lockkit uses, and nothing else.

The extra ``redis`` keeps both below the first untried version; test_redis_private.py shows what that changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
import redis.crc

__all__ = ["error_of", "slot_of"]

slot_of: Callable[[bytes], int] = redis.crc.key_slot
"""The slot of a Cluster that has a key. Alternative: CRC16 of the text between the first braces, modulo
16384, as the specification of Redis Cluster has it."""

_class: Any = redis.Connection
_connection = _class(protocol=2)  # kept: Python ignores a Ctrl-C that comes in the destructor of its parser
_parse: Callable[[str], Exception] = _connection._parser.parse_error  # noqa: SLF001


def error_of(text: str) -> Exception:
    """The exception for an error reply, with the code, which redis-py drops. Alternative: a table here."""
    try:
        error = _parse(text)
    except (ValueError, IndexError):  # the code of a redirection, and no redirection behind it
        return redis.ResponseError(text)
    error.args = (text,)
    return error
