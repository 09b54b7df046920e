"""The errors of Redis, and the one table, in two parts, that maps them onto Refused and Unknown.

An error reply says that the command was not executed. But a script that fails half-way has done its first
half, so an error from inside a script is Unknown, as is an unlisted one. See also ``unreachable``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import redis.exceptions as theirs

from lockkit.errors import (
    BackendUnavailable,
    ConfigError,
    IncompatibleLayout,
    OutcomeUnknown,
    PermissionDenied,
)
from lockkit.store.spi import Refused, Unknown

__all__ = ["Whence", "checked", "meaning", "replied", "unanswered"]

_RIGHTS = "see: lockkit docs redis-acl"


class Whence(Protocol):
    """The server that an error came from.

    Attributes:
        where: The URL, without secrets.
        namespace: The namespace of the keys and channels in the request.
    """

    where: str
    namespace: str


_FOR_GOOD = {
    "NOPERM": (PermissionDenied, "the user may not do this", _RIGHTS),
    "NOAUTH": (
        PermissionDenied,
        "it wants a password",
        "write it into the URL: redis://:password@host, or redis://user:password@host",
    ),
    "WRONGPASS": (
        PermissionDenied,
        "user name or password is wrong",
        "check both, and that the user is not disabled (ACL LIST)",
    ),
    "NOPASSWORD": (
        PermissionDenied,
        "the URL has a password, but the server has none",
        "leave it out, or set one",
    ),
    "UNKNOWN": (PermissionDenied, "a command that lockkit needs is renamed or forbidden", _RIGHTS),
    "DENIED": (
        BackendUnavailable,
        "it is in protected mode",
        "give it a password, or bind it to the loopback interface and connect there",
    ),
    "WRONGTYPE": (
        BackendUnavailable,
        "a key of this lock is not lockkit's: somebody else has written to it",
        "ask for the TYPE of its keys; see: lockkit docs layout",
    ),
    "DAMAGED": (
        BackendUnavailable,
        "a claim on this lock is damaged, or not lockkit's",
        "see lockkit status, and lockkit evict --now",
    ),
    "LAYOUT": (
        IncompatibleLayout,
        "a newer lockkit wrote something into the queue that older ones must not touch",
        "upgrade lockkit here, or let the newer ones finish first",
    ),
    "CROSSSLOT": (BackendUnavailable, "it is part of a Cluster", "write redis+cluster://host"),
    "NOCLUSTER": (ConfigError, "it is not part of a Cluster", "write redis://host:6379"),
    "DB": (
        ConfigError,
        "it has no such database",
        "its setting `databases` says how many there are; the first is 0",
    ),
}
"""Errors that only another URL, right or version can end: the class of the error, its cause, what to do."""
_PASSING = {
    "READONLY": (
        "it is a replica",
        "name the primary, or let redis+sentinel:// find it; during a failover this passes",
    ),
    "MASTERDOWN": ("it is a replica without its primary", "name the primary"),
    "LOADING": ("it is still loading its data", "this passes"),
    "BUSY": ("a script has kept it busy for too long", "SLOWLOG GET shows whose it is; SCRIPT KILL ends it"),
    "OOM": ("it is out of memory", "raise maxmemory; locks need maxmemory-policy noeviction"),
    "MISCONF": ("it cannot write to its disk and refuses changes", "read its log"),
    "NOREPLICAS": (
        "it has too few replicas (min-replicas-to-write)",
        "check the replicas; INFO replication lists them",
    ),
    "NOCLIENTS": ("it has reached its limit of clients", "raise maxclients"),
    "MOVED": ("it is part of a Cluster, and has other slots", "write redis+cluster://host"),
    "ASK": (
        "it is part of a Cluster, which is moving a slot",
        "this passes; name a Cluster by redis+cluster://host",
    ),
    "TRYAGAIN": ("the Cluster is moving a slot", "this passes"),
    "CLUSTERDOWN": (
        "the Cluster is down",
        "see CLUSTER INFO; one slot without a node is enough, unless cluster-require-full-coverage is no",
    ),
}
"""Errors that may pass with time or a restart: the cause, and what to do."""
_MESSAGES = (
    ("max number of clients", "NOCLIENTS"),
    ("called from script", "UNKNOWN"),
    ("called from Lua script", "UNKNOWN"),
    ("unknown command", "UNKNOWN"),
    ("ACL failure in script", "NOPERM"),
    ("user executing the script", "NOPERM"),
    ("because of: NOPERM", "NOPERM"),
    ("LAYOUT min_reader", "LAYOUT"),
    ("DAMAGED claim", "DAMAGED"),
    ("WRONGTYPE", "WRONGTYPE"),
    ("cluster support disabled", "NOCLUSTER"),
    ("Authentication required", "NOAUTH"),
    ("HELLO must be called with", "NOAUTH"),
    ("for 'auth' command", "NOAUTH"),
    ("for 'AUTH' command", "NOAUTH"),
    ("invalid password", "WRONGPASS"),
    ("DB index is out of range", "DB"),
    ("invalid DB index", "DB"),
    ("Client sent AUTH", "NOPASSWORD"),
    ("called without any password configured", "NOPASSWORD"),
)
"""Texts of errors whose first word is no code, or not the cause."""
_HALFWAY = re.compile(
    r"from (Lua )?script|ACL failure in script|user executing the script|LAYOUT|DAMAGED|WRONGTYPE"
)
"""Texts of errors from inside a script: what came before them was done."""
_UNNAMED = re.compile(r"access (?:a|at least one of the) (key|channel)")
"""The text of a refusal that does not say which key or channel."""
_NEEDED = {"key": "~lockkit:{}:*", "channel": "&lockkit:{}:wake:*"}


def replied(error: Exception, whence: Whence) -> Refused | Unknown:
    """The exception to raise for an error that the server replied with."""
    code, where, text = meaning(error), whence.where, str(error)
    if code is None:
        return Unknown(
            OutcomeUnknown(
                f"{where}: {text}", hint="lockkit does not know this error; if it lasts, please report it"
            )
        )
    retry = code in _PASSING
    kind, what, hint = (BackendUnavailable, *_PASSING[code]) if retry else _FOR_GOOD[code]
    if code == "NOPERM" and (unnamed := _UNNAMED.search(text)):
        needed = _NEEDED[unnamed[1]].format(whence.namespace)
        what = f"the user has no right to {needed[1:]}"
        hint = f"ACL SETUSER NAME {needed} gives it; {_RIGHTS}"
    if code in ("NOPERM", "UNKNOWN", "MISCONF"):
        # The arguments of the command are left out: they may be half a script.
        said = re.split(r", with args|\. Check the| script: [0-9a-f]{40}", text)[0]
        what = f"{what} ({said.removeprefix(f'{code} ')})"
    outcome = Unknown if _HALFWAY.search(text) else Refused
    return outcome(kind(f"{where}: {what}", hint=hint), retry=retry)


def checked(answers: Sequence[Any], whence: Whence) -> Sequence[Any]:
    """The answers, if none of them is an error.

    Raises:
        Refused, Unknown: One is.
    """
    for answer in answers:
        if isinstance(answer, theirs.RedisError):
            raise replied(answer, whence) from answer
    return answers


def meaning(error: Exception) -> str | None:
    """The key of an error in the tables of replies; None if it is in neither."""
    text = str(error)
    word = text.partition(" ")[0]
    code = next((code for fragment, code in _MESSAGES if fragment in text), word)
    return code if code in _PASSING or code in _FOR_GOOD else None


def unanswered(error: BaseException, where: str) -> Unknown:
    """The exception to raise for a request that may have been sent, and has no answer."""
    text = str(error).partition("\n")[0] or "time out"
    hint = "is it Redis, and busy or cut off? See its log, SLOWLOG GET and the network; or run lockkit doctor"
    return Unknown(OutcomeUnknown(f"no answer from {where}: {text}", hint=hint))
