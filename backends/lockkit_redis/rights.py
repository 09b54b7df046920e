"""Try every command that a lock needs, and change nothing: does the server let this user lock?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis.exceptions as theirs

from lockkit.errors import LockkitError, PermissionDenied
from lockkit.facts import Finding
from lockkit.store.budgets import left
from lockkit_redis.connection import pack
from lockkit_redis.failures import replied, unanswered
from lockkit_redis.scripts import Script
from lockkit_redis.server import Server
from lockkit_redis.store import RedisStore

__all__ = ["rights"]

_PROBE = Script("probe", queue=False)
_RUN = {"EVAL", "EVALSHA"}
_LOOK = {"MULTI", "HGETALL", "EXEC"}
"""The commands that `status` needs beside those that the scripts call."""


def rights(store: RedisStore, server: Server, keys: Sequence[str], end: float) -> Sequence[Finding]:
    """Examine the rights on one server.

    Args:
        store: The store.
        server: The server.
        keys: Unused keys of the namespace, in slots that the server should have; there may be none.
        end: When to give up, on ``time.monotonic()``.

    Raises:
        Refused, Unknown: The server cannot be asked.
    """
    answers = _tried(store, server, keys, end)
    refused = [(word, replied(error, server).error) for word, error in _refused(answers)]
    denied = {word: error for word, error in refused if isinstance(error, PermissionDenied)}
    others = [error for _, error in refused if not isinstance(error, PermissionDenied)]
    found = []
    if others:
        found.append(Finding("scripts", "error", others[0].message, others[0].hint or ""))
    if denied:
        found.append(_missing(server, denied))
    elif any(isinstance(answer, list) for _, answer in answers):  # otherwise nothing is known
        found.append(_hearing(store, server, end))
    return found


def _tried(store: RedisStore, server: Server, keys: Sequence[str], end: float) -> Sequence[tuple[str, Any]]:
    """Send the commands of a client; return them and the replies: the probe by EVAL and EVALSHA, WAIT, reads.

    EVAL comes first, so that the server knows the script; if only EVAL is forbidden, EVALSHA gets NOSCRIPT.
    """
    by_digest = [_PROBE.packed((key,), f"{store.channel}:doctor") for key in keys]
    if keys:
        row = [("EVAL", _PROBE.spelled_out(by_digest[0])), *(("EVALSHA", packed) for packed in by_digest)]
    else:  # without a key to try commands on, only the right to run scripts can be tested
        row = [("EVAL", pack("EVAL", "return {}", 0)), ("EVALSHA", pack("EVALSHA", "0" * 40, 0))]
    if store.copies:
        row.append(("WAIT", pack("WAIT", 0, 1)))
    row += [("HGETALL", pack("HGETALL", key)) for key in keys[:1]]
    row += [("MULTI", pack("MULTI")), ("EXEC", pack("EXEC"))]
    answers = store.row(server, b"".join(packed for _, packed in row), left(end), len(row), whole=True)
    return [(word, answer) for (word, _), answer in zip(row, answers, strict=True)]


def _refused(answers: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, Exception]]:
    """Each refused command with its error; those that a script called come first."""
    ran = next((answer for _, answer in answers if isinstance(answer, list)), ())
    for word, error in ran:
        yield word.decode(), theirs.ResponseError(error.decode(errors="replace"))
    for word, answer in answers:
        refused = isinstance(answer, theirs.RedisError) and not isinstance(answer, theirs.NoScriptError)
        if refused and "without MULTI" not in str(answer):  # that error says only that MULTI was refused
            yield word, answer


def _missing(server: Server, denied: Mapping[str, LockkitError]) -> Finding:
    first = next(iter(denied.values()))
    if denied.keys() >= _RUN and not denied.keys() & _LOOK:
        return Finding("rights", "error", first.message, f"observers may look but not lock; {first.hint}")
    why = first.message.removeprefix(f"{server.where}: ")
    words = f"{', '.join(sorted(denied))} {'is' if len(denied) == 1 else 'are'} refused"
    hints = dict.fromkeys(error.hint for error in denied.values() if error.hint)
    return Finding("rights", "error", f"{server.where}: {words}: {why}", "; ".join(hints))


def _hearing(store: RedisStore, server: Server, end: float) -> Finding:
    until = time.monotonic() + left(end)
    connection = store.performer.open(server, until)
    try:
        (heard,) = connection.exchange(pack("SUBSCRIBE", store.channel), until, 1)
    except (theirs.RedisError, OSError) as error:
        raise unanswered(error, server.where) from error
    finally:
        connection.close()
    if isinstance(heard, theirs.RedisError):
        told = replied(heard, server).error
        hint = "without this right waiters ask every two seconds instead of being told"
        return Finding("rights", "warning", told.message, f"{hint}; {told.hint}" if told.hint else hint)
    return Finding("rights", "ok", "scripts can be run, and wake-ups are heard")
