"""Sentinel: the address of the primary."""

from __future__ import annotations

import time

import redis.exceptions as theirs

from lockkit.store.spi import Refused
from lockkit.store.urls import at
from lockkit_redis.address import Address
from lockkit_redis.connecting import connected
from lockkit_redis.connection import pack
from lockkit_redis.failures import meaning
from lockkit_redis.unreachable import none_of, not_connected, of_a_sentinel, unknown_service

__all__ = ["primary"]

_LEAST = 0.005


def primary(address: Address, budget: float) -> tuple[str, int]:
    """Host and port of the primary, as the first sentinel says that knows.

    Raises:
        Refused: None knows, or none answers.
    """
    end = time.monotonic() + budget
    refusals: list[Refused] = []
    for left, host in zip(range(len(address.hosts), 0, -1), address.hosts, strict=True):
        try:
            return _asked(address, host, max((end - time.monotonic()) / (left + 1), _LEAST))
        except Refused as refusal:
            refusals.append(refusal)
    raise none_of(refusals, address.shown)


def _asked(address: Address, place: tuple[str, int], budget: float) -> tuple[str, int]:
    """Ask one sentinel."""
    end = time.monotonic() + budget
    where = at(*place)
    user, password = address.sentinel
    login = [] if password is None else [pack("AUTH", *filter(None, (user,)), password)]
    row = [*login, pack("SENTINEL", "GET-MASTER-ADDR-BY-NAME", str(address.service))]
    connection = None
    try:
        connection = connected(place, address.tls, budget)
        connection.begin(b"".join(row), end)
        *logins, found = [connection.hear(end) for _ in row]
    except (theirs.RedisError, OSError) as error:
        raise not_connected(error, where, address) from error
    finally:
        if connection is not None:
            connection.close()
    if isinstance(found, theirs.RedisError):
        # One that wants a login has said before what is wrong with the one that was given.
        first = next(each for each in (*logins, found) if isinstance(each, theirs.RedisError))
        raise of_a_sentinel(first if meaning(found) == "NOAUTH" else found, where)
    if found is None:
        raise unknown_service(str(address.service), where)
    return found[0].decode(), int(found[1])
