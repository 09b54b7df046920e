"""Everything that lockkit uses of redis-py and hiredis without their documentation promising it, and nothing else.

The extra ``redis`` keeps both below a version that nobody has tried. tests/backends/test_redis_private.py says which of these
names a newer one has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
import redis.crc

__all__ = ["error_of", "slot_of"]

slot_of: Callable[[bytes], int] = redis.crc.key_slot
"""The slot of a Cluster that has a key. In its place: CRC16 of what stands between the first braces, modulo 16384, as the
specification of Redis Cluster has it."""

_class: Any = redis.Connection
_connection = _class(protocol=2)  # kept: Python ignores a Ctrl-C that comes in the destructor of its parser
_parse: Callable[[str], Exception] = _connection._parser.parse_error  # noqa: SLF001


def error_of(text: str) -> Exception:
    """The exception for an error reply, with all of its text.

    redis-py knows which class stands for which code, but drops the code. In its place: a table of codes and classes here.
    """
    try:
        error = _parse(text)
    except (ValueError, IndexError):  # the code of a redirection, and no redirection behind it
        return redis.ResponseError(text)
    error.args = (text,)
    return error
