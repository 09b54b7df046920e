"""Deliberate mistakes in the Redis store's scripts: replacements, and the kit scenarios that notice."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

__all__ = ["LUA", "Change", "spoiled"]

Change: TypeAlias = tuple[tuple[str, ...], str, str]
"""In which scripts, what, by what."""
ALL = ("ACQUIRE", "RENEW", "EXTEND", "RELEASE", "EVICT", "RESIZE", "ANNOTATE")


@contextlib.contextmanager
def spoiled(scripts: Any, changes: tuple[Change, ...]) -> Iterator[None]:
    """The store's module of scripts with pieces of their text replaced, for as long as the context lasts."""
    kept = {name: dict(vars(getattr(scripts, name))) for name in ALL}
    try:
        for names, right, wrong in changes:
            for name in names:
                script = getattr(scripts, name)
                assert script.text.count(right) == 1, f"{name} does not have {right!r} once"
                script.text, old = script.text.replace(right, wrong), script.sha
                script.sha = hashlib.sha1(script.text.encode(), usedforsecurity=False).hexdigest()
                script.head = script.head.replace(old.encode(), script.sha.encode())
        yield
    finally:
        for name, was in kept.items():
            vars(getattr(scripts, name)).update(was)


LUA: Mapping[str, tuple[str, tuple[Change, ...]]] = {
    "no-tombstone-when-nothing-was-found": (
        "S12-abandon-first",
        (
            (
                ("RELEASE",),
                "if tombstone then bury(token) end\nif not claim then\n",
                "if not claim then\n  tombstone = false\n",
            ),
        ),
    ),
    "settle-only-at-the-start": (
        "L3-hand-off",
        (
            (("RELEASE",), "if weight ~= capacity", "if true"),
            (
                ("RELEASE",),
                "remove(token, claim)\noffer()\nkeep()\nreturn 1",
                "remove(token, claim)\nkeep()\nreturn 1",
            ),
        ),
    ),
    "offers-what-is-held": (
        "S2-busy",
        (
            (ALL, "elseif not crowd and claim.state == 'WAITING' then", "elseif not crowd then"),
            (("ACQUIRE",), "if not first then return end", "if true then return end"),
            (("ACQUIRE",), "if not wait then return { 'B'", "offer()\n  if not wait then return { 'B'"),
        ),
    ),
    "skips-instead-of-purging": (
        "L1-any-holder-dies",
        (
            (
                ALL,
                "    if fine then remove(token, claim or {}) end",
                "    if fine and call('ZRANK', q, token) == 0 then remove(token, claim or {}) end",
            ),
        ),
    ),
    "heartbeat-extends-an-offer": (
        "S2-slow-offer",
        (
            (
                ("RENEW",),
                "    return said('O', '', note)",
                "    call('ZADD', d, whole(now + GRACE), token)\n    return said('O', '', note)",
            ),
        ),
    ),
    "grace-below-the-poll-cap": (
        "L3-lost-wake",
        ((ALL, "SLACK, CHUNK, READER = 6000", "SLACK, CHUNK, READER = 1000"),),
    ),
    "release-without-compare": (
        "S1-wrong-token",
        (
            (
                ("RELEASE",),
                "local function released()\n",
                "token = call('ZRANGE', q, 0, 0)[1]\nlocal function released()\n",
            ),
        ),
    ),
}
