"""The errors of Redis, and the one table that maps them onto Refused and Unknown.

An error reply says that the command was not executed; but a script that fails half-way has done its first half, so an error
from inside a script is Unknown, and so is what is not listed here. Why there is no connection is told elsewhere (``unreachable``).
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
    LockkitError,
    OutcomeUnknown,
    PermissionDenied,
)
from lockkit.store.spi import Refused, Unknown

__all__ = ["Whence", "checked", "meaning", "replied", "unanswered"]

_RIGHTS = 'see "Rights on Redis" in lockkit\'s documentation'


class Whence(Protocol):
    """The server that an error came from.

    Attributes:
        where: The URL, without secrets.
        namespace: The namespace of the keys and channels in the request.
    """

    @property
    def where(self) -> str: ...

    @property
    def namespace(self) -> str: ...


_REPLIES: dict[str, tuple[type[LockkitError], bool, str, str]] = {
    "NOPERM": (
        PermissionDenied,
        False,
        "the user may not do this",
        _RIGHTS,
    ),
    "NOAUTH": (
        PermissionDenied,
        False,
        "it wants a password",
        "write redis://:password@host or set the user's",
    ),
    "WRONGPASS": (
        PermissionDenied,
        False,
        "user name or password is wrong",
        "check them, and that the user is on",
    ),
    "READONLY": (
        BackendUnavailable,
        True,
        "it is a replica",
        "name the primary, or let redis+sentinel:// find it; during a failover this passes",
    ),
    "MASTERDOWN": (BackendUnavailable, True, "it is a replica without its primary", "name the primary"),
    "LOADING": (BackendUnavailable, True, "it is still loading its data", "this passes"),
    "BUSY": (
        BackendUnavailable,
        True,
        "a script has kept it busy for too long",
        "find whose: SLOWLOG GET; SCRIPT KILL ends it",
    ),
    "OOM": (
        BackendUnavailable,
        True,
        "it is out of memory",
        "raise maxmemory; locks need maxmemory-policy noeviction",
    ),
    "MISCONF": (
        BackendUnavailable,
        True,
        "it cannot write to its disk and refuses changes",
        "look into its log",
    ),
    "NOREPLICAS": (
        BackendUnavailable,
        True,
        "it has too few replicas (min-replicas-to-write)",
        "look after them",
    ),
    "MOVED": (
        BackendUnavailable,
        True,
        "it is part of a Cluster, and has other slots",
        "write redis+cluster://host",
    ),
    "ASK": (
        BackendUnavailable,
        True,
        "it is part of a Cluster, which is moving a slot",
        "this passes; name a Cluster by redis+cluster://host",
    ),
    "TRYAGAIN": (BackendUnavailable, True, "the Cluster is moving a slot", "this passes"),
    "CLUSTERDOWN": (BackendUnavailable, True, "the Cluster is down", "see CLUSTER INFO"),
    "DENIED": (
        BackendUnavailable,
        False,
        "it is in protected mode",
        "give it a password, or bind it to the loopback interface and connect there",
    ),
}
_MESSAGES = (
    ("max number of clients", "NOCLIENTS"),
    ("called from script", "UNKNOWN"),
    ("called from Lua script", "UNKNOWN"),
    ("unknown command", "UNKNOWN"),
    ("ACL failure in script", "NOPERM"),
    ("user executing the script", "NOPERM"),
    ("because of: NOPERM", "NOPERM"),
    ("LAYOUT min_reader", "LAYOUT"),
    ("WRONGTYPE", "WRONGTYPE"),
    ("cluster support disabled", "NOCLUSTER"),
    ("Authentication required", "NOAUTH"),
    ("HELLO must be called with", "NOAUTH"),
    ("DB index is out of range", "DB"),
    ("invalid DB index", "DB"),
    ("Client sent AUTH", "NOPASSWORD"),
    ("called without any password configured", "NOPASSWORD"),
)
_HALFWAY = re.compile(r"from (Lua )?script|ACL failure in script|user executing the script|LAYOUT|WRONGTYPE")
"""From inside a script: what came before it was done."""
_REPLIES |= {
    "NOCLIENTS": (BackendUnavailable, True, "it has as many clients as it takes", "raise maxclients"),
    "UNKNOWN": (
        PermissionDenied,
        False,
        "a command that lockkit needs is renamed or forbidden",
        _RIGHTS,
    ),
    "LAYOUT": (
        IncompatibleLayout,
        False,
        "the queue has what a newer lockkit wrote and older ones must not touch",
        "upgrade lockkit here, or let the newer ones finish first",
    ),
    "WRONGTYPE": (
        BackendUnavailable,
        False,
        "a key of this lock is not lockkit's: somebody else has written to it",
        'ask for the TYPE of its keys and see "The layout on the store" in lockkit\'s documentation',
    ),
    "NOCLUSTER": (ConfigError, False, "it is no Cluster", "write redis://host:6379"),
    "DB": (
        ConfigError,
        False,
        "it has no such database",
        "see its setting `databases`; the first is 0",
    ),
    "NOPASSWORD": (
        PermissionDenied,
        False,
        "a password was given, and it has none",
        "leave it out, or set one",
    ),
}
_CODES = {
    theirs.NoPermissionError: "NOPERM",
    theirs.ReadOnlyError: "READONLY",
    theirs.BusyLoadingError: "LOADING",
    theirs.OutOfMemoryError: "OOM",
    theirs.AuthenticationError: "WRONGPASS",
    theirs.AuthenticationWrongNumberOfArgsError: "NOAUTH",
    theirs.ClusterDownError: "CLUSTERDOWN",
    theirs.MasterDownError: "MASTERDOWN",
    theirs.TryAgainError: "TRYAGAIN",
    theirs.AskError: "ASK",
    theirs.MovedError: "MOVED",
}


_UNNAMED = re.compile(r"access (?:a|at least one of the) (key|channel)")
"""Redis does not say which."""
_NEEDED = {"key": "~lockkit:{}:*", "channel": "&lockkit:{}:wake:*"}


def replied(error: Exception, whence: Whence) -> Refused | Unknown:
    """An error that the server sent."""
    code, where = meaning(error), whence.where
    if code is None:
        return Unknown(OutcomeUnknown(f"{where}: {error}", hint="if it lasts, this is worth a bug report"))
    kind, retry, text, hint = _REPLIES[code]
    if code == "NOPERM" and (unnamed := _UNNAMED.search(str(error))):
        needed = _NEEDED[unnamed[1]].format(whence.namespace)
        text = f"the user has no right to {needed[1:]}"
        hint = f"ACL SETUSER NAME {needed} gives it; {_RIGHTS}"
    # The arguments of the command are left out: they may be half a script.
    said = re.split(r", with args|\. Check the| script: [0-9a-f]{40}", str(error))[0]
    said = f" ({said})" if code in ("NOPERM", "UNKNOWN", "MISCONF") else ""
    told = kind(f"{where}: {text}{said}", hint=hint)
    outcome = Unknown if _HALFWAY.search(str(error)) else Refused
    return outcome(told, retry=retry)


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
    """The key of an error in the table of replies; None if it is not there."""
    text = str(error)
    for fragment, code in _MESSAGES:
        if fragment in text:
            return code
    word = text.split(" ", 1)[0].lstrip("-")
    if word in _REPLIES:
        return word
    for kind, code in _CODES.items():
        if type(error) is kind:
            return code
    return None


def unanswered(error: BaseException, where: str) -> Unknown:
    """Return the exception to raise for a request that may have been sent, and has no answer."""
    text = str(error).partition("\n")[0] or "time out"
    hint = "is it Redis, and busy or cut off? See its log, SLOWLOG GET and the network; doctor looks at it"
    return Unknown(OutcomeUnknown(f"no answer from {where}: {text}", hint=hint))
