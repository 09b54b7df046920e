"""Everything that lockkit uses of redis-py and hiredis without their documentation promising it, and nothing else.

The extra ``redis`` keeps both below a version that nobody has tried. tests/backends/test_redis_private.py says which of these
names a newer one has changed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import redis.crc

__all__ = ["error_of", "slot_of", "taken_socket"]

slot_of: Callable[[bytes], int] = redis.crc.key_slot
"""The slot of a Cluster that has a key. In its place: CRC16 of what stands between the first braces, modulo 16384, as the
specification of Redis Cluster has it."""


def taken_socket(connection: Any) -> socket.socket:
    """Take the socket from a connection of redis-py, which is useless afterwards.

    redis-py connects well, but what it does for each command costs as much as the command. In its place: connecting here, with
    ``socket`` and ``ssl``.
    """
    taken: socket.socket = connection._sock  # noqa: SLF001
    connection._sock = None  # noqa: SLF001 - its finalizer would close the socket
    return taken


def error_of(connection: Any) -> Callable[[str], Exception]:
    """The function by which redis-py makes an exception of an error reply: it knows which class stands for which code.

    In its place: a table of codes and classes here.
    """
    parse: Callable[[str], Exception] = connection._parser.parse_error  # noqa: SLF001
    return parse
