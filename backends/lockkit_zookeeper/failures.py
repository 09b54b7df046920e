"""The errors of kazoo and of ZooKeeper, and the one table that maps them onto Refused and Unknown.

If the server answers with an error, the request was not executed. At the end of a connection or session the
outcome of the requests under way is unknown. Any error that is not listed is Unknown.
"""

from __future__ import annotations

import ssl

import kazoo.exceptions as theirs
from kazoo.handlers.threading import KazooTimeoutError

from lockkit.errors import BackendUnavailable, LockkitError, OutcomeUnknown, PermissionDenied
from lockkit.store.handshakes import handshake_error
from lockkit.store.spi import Refused, Unknown

__all__ = [
    "SILENT",
    "explained",
    "not_connected",
    "refused_login",
    "unanswered",
    "without_sasl",
    "without_trust",
]

_UNANSWERED = (
    theirs.ConnectionLoss,
    theirs.SessionExpiredError,  # ConnectionClosedError too
    theirs.SessionMovedError,
    theirs.OperationTimeoutError,
    theirs.RequestTimeoutError,
    KazooTimeoutError,
)
"""Errors that leave open whether the request was executed."""
_ANOTHER = (
    "and check the password: with auth=digest a wrong password is not refused, but makes you another user"
)
_ANSWERED: dict[type[Exception], tuple[type[LockkitError], bool, str, str]] = {
    theirs.NoAuthError: (
        PermissionDenied,
        False,
        "the login may not do this",
        "see: lockkit docs zookeeper-acl",
    ),
    theirs.AuthFailedError: (
        PermissionDenied,
        False,
        "the login is refused",
        "check user and password, and auth=digest or auth=sasl",
    ),
    theirs.SessionClosedRequireSaslError: (
        PermissionDenied,
        False,
        "the server serves only clients that log in by SASL",
        "write zookeeper://user:password@host?auth=sasl",
    ),
    theirs.InvalidACLError: (
        PermissionDenied,
        False,
        "the server does not accept the ACL of a new node",
        "log in as a user that the server knows, and check `observer` in the URL",
    ),
    theirs.NotReadOnlyCallError: (
        BackendUnavailable,
        True,
        "the server has lost its majority and is read-only",
        "start the other members of the ensemble",
    ),
    theirs.ThrottledOpError: (BackendUnavailable, True, "the server is overloaded", "try again"),
    theirs.QuotaExceededError: (
        BackendUnavailable,
        False,
        "the quota of this path is used up",
        "see listquota in zkCli, and raise it",
    ),
    theirs.UnimplementedError: (
        BackendUnavailable,
        False,
        "the server is too old: it has no container nodes",
        "use ZooKeeper 3.5.3 or later",
    ),
    theirs.NoChildrenForEphemeralsError: (
        BackendUnavailable,
        False,
        "a node of the path is ephemeral, so it is not one of lockkit's",
        "use a chroot of its own: zookeeper://host:2181/lockkit",
    ),
    theirs.NoNodeError: (BackendUnavailable, True, "a node was deleted meanwhile", "try again"),
    theirs.BadVersionError: (BackendUnavailable, True, "a node was changed meanwhile", "try again"),
    theirs.NodeExistsError: (BackendUnavailable, True, "a node was created meanwhile", "try again"),
    theirs.NotEmptyError: (BackendUnavailable, True, "a node was created meanwhile", "try again"),
}


def explained(error: BaseException, where: str, doing: str) -> Refused | Unknown:
    """Return the exception to raise for an error of kazoo's.

    Args:
        error: The exception that kazoo raised.
        where: The URL, without secrets.
        doing: The request, as a verb and a path.
    """
    if isinstance(error, (Refused, Unknown)):
        return error
    if isinstance(error, _UNANSWERED):
        return unanswered(error, where)
    for kind, (ours, retry, text, hint) in _ANSWERED.items():
        if isinstance(error, kind):
            more = f"; {_ANOTHER}" if kind is theirs.NoAuthError and ":***@" in where else ""
            return Refused(ours(f"{where}: {text} ({doing})", hint=hint + more), retry=retry)
    told = f"{where}: {type(error).__name__}: {error} ({doing})"
    return Unknown(OutcomeUnknown(told, hint="if it happens again, report it as a bug of lockkit"))


SILENT = "is a majority of the servers running, and reachable?"
"""The hint where servers do not answer."""


def unanswered(error: BaseException, where: str) -> Unknown:
    """Return the exception to raise for a request that may have been sent, and has no answer."""
    why = "the connection was lost" if isinstance(error, theirs.ConnectionLoss) else "timed out"
    if isinstance(error, theirs.SessionExpiredError):
        why = "the session has ended"
    return Unknown(OutcomeUnknown(f"no answer from {where}: {why}", hint=SILENT))


def not_connected(where: str, why: str = "no server answers") -> Refused:
    """Return the exception to raise where there is no connection, so that nothing was sent."""
    hint = "check hosts, ports and TLS; is a majority of them running?"
    return Refused(BackendUnavailable(f"cannot reach {where}: {why}", hint=hint))


_SIGNER = "use one that an authority in the servers' ssl.trustStore has signed"
_PLAIN = "write zookeeper:// if it is ZooKeeper without TLS, and leave out tls=yes"


def without_trust(error: BaseException, where: str, *, ca_file: bool) -> LockkitError | None:
    """The error about a TLS handshake that would fail again; None if another try may help.

    Args:
        error: The exception that kazoo raised; that of OpenSSL is among its causes.
        where: Host and port.
        ca_file: True if the URL names an authority.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    return handshake_error(str(cause), where, ca_file=ca_file, signer=_SIGNER, plain=_PLAIN)


def refused_login(where: str) -> PermissionDenied:
    """Return the error for a login that the servers refuse."""
    hint = "check user and password, and auth=digest or auth=sasl"
    return PermissionDenied(f"{where}: the login is refused", hint=hint)


def without_sasl(where: str) -> PermissionDenied:
    """Return the error for a login by SASL to a server that does not support SASL."""
    return PermissionDenied(
        f"{where}: the URL says auth=sasl, but the server does not support SASL",
        hint="leave auth=sasl out to log in by digest; "
        "or set authProvider.sasl and a JAAS section `Server` on the servers",
    )
