"""The errors of the server: the one table that maps them onto Refused and Unknown.

Each statement is a transaction of its own here, so there are just three cases.

- There was no connection yet, so nothing was sent: Refused.
- The server answered with an ERROR, so the transaction was rolled back: Refused, if the table lists the
  error. An error that it does not list is Unknown, as everywhere in lockkit.
- Anything else: no answer in time, a connection that broke, a FATAL error (the server ended the session,
  perhaps between the commit and its answer). Unknown.
"""

from __future__ import annotations

from lockkit.errors import (
    BackendUnavailable,
    IncompatibleLayout,
    LockkitError,
    OutcomeUnknown,
    PermissionDenied,
)
from lockkit.store.spi import Refused, Unknown

__all__ = ["answered", "not_connected", "too_new", "unanswered"]

_LOAD = "have its owner load schema.sql of lockkit-postgres"
_ERRORS: dict[str, tuple[type[LockkitError], bool, str, str]] = {
    # SQLSTATE or its class: what to raise, whether to ask again, meaning, remedy. PostgreSQL, appendix A.
    "42501": (
        PermissionDenied,
        False,
        "the user may not do this",
        "see the rights in the README of lockkit-postgres",
    ),
    "3F000": (IncompatibleLayout, False, "there is no such schema", _LOAD),
    "42883": (IncompatibleLayout, False, "the schema is not that of lockkit", _LOAD),
    "42P01": (IncompatibleLayout, False, "the schema is not that of lockkit", _LOAD),
    "LK001": (BackendUnavailable, False, "the isolation is not READ COMMITTED", "no proxy may change it"),
    "25006": (
        BackendUnavailable,
        True,
        "it takes no writes: a standby",
        "name the primary; in a failover this passes",
    ),
    "57014": (BackendUnavailable, True, "it was too slow", "look for long transactions in pg_stat_activity"),
    "55P03": (BackendUnavailable, True, "it was too slow", "look for long transactions in pg_stat_activity"),
    "40001": (BackendUnavailable, True, "another transaction was in the way", "this passes"),
    "40P01": (BackendUnavailable, True, "another transaction was in the way", "this passes"),
    "53": (
        BackendUnavailable,
        True,
        "the server is out of disk space, memory or connections",
        "look into its log",
    ),
}
_LOGIN = (
    "password authentication",
    "no password supplied",
    "no pg_hba.conf entry",
    "authentication failed",
    "role ",
)


def answered(state: str | None, severity: str | None, message: str, where: str) -> Refused | Unknown:
    """The exception for an error that the server sent instead of a result.

    Args:
        state: SQLSTATE; None for one of libpq's own, such as a connection that broke.
        severity: ``ERROR``, ``FATAL`` or ``PANIC``, not translated.
        message: The server's message.
        where: The URL without secrets.
    """
    if state is None or severity != "ERROR":
        return unanswered(message, where)
    found = _ERRORS.get(state) or _ERRORS.get(state[:2])
    if found is None:
        hint = "if it lasts, this is worth a bug report"
        return Unknown(OutcomeUnknown(f"{where}: {state} {message}", hint=hint))
    kind, retry, meaning, hint = found
    return Refused(kind(f"{where}: {meaning} ({message})", hint=hint), retry=retry)


def unanswered(trouble: object, where: str) -> Unknown:
    """The exception for a request that was sent and got no answer."""
    text = " ".join(str(trouble).split()) or type(trouble).__name__
    return Unknown(
        OutcomeUnknown(f"no answer from {where}: {text}", hint="is the server running, and reachable?")
    )


def not_connected(trouble: object, where: str) -> Refused:
    """The refusal for a connection that could not be made. libpq gives no SQLSTATE here, only a message."""
    text = " ".join(str(trouble).split())
    if text.startswith("invalid "):  # it quotes a part of the URL, which may be of a password
        text = text.partition('"')[0].rstrip(": ")
        hint = "see the options of libpq; in a password / ? # @ : % are escaped"
        return Refused(BackendUnavailable(f"cannot use {where}: {text}", hint=hint), retry=False)
    if any(word in text for word in _LOGIN):
        hint = "check user, password and pg_hba.conf"
        return Refused(PermissionDenied(f"cannot log in at {where}: {text}", hint=hint), retry=False)
    if "does not exist" in text:
        return Refused(
            BackendUnavailable(f"cannot use {where}: {text}", hint="createdb makes a database"), retry=False
        )
    hint = "check host, port and TLS; is it running?"
    return Refused(BackendUnavailable(f"cannot reach {where}: {text}", hint=hint))


def too_new(where: str, version: int) -> Refused:
    """The refusal of a schema that a newer lockkit-postgres created for newer readers."""
    text = f"{where}: its schema is of layout {version}, which this version does not know"
    return Refused(IncompatibleLayout(text, hint="upgrade lockkit-postgres here"), retry=False)
