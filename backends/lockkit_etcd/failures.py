"""The errors of etcd, and what each means for the request: one table, by gRPC code and etcd's own words.

Both transports report the same errors. A request with an error in the table was definitely not executed,
unless its row says Unknown (a full database). With any other error it may have been executed. The code alone
is not enough: 8 is "database space exceeded" or "message too large", 5 concerns a lease or a path, and 14 is
"no leader", which is definite, or "request timed out", which is not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from lockkit.errors import BackendUnavailable, LockkitError, OutcomeUnknown, PermissionDenied
from lockkit.store.handshakes import trust_hint
from lockkit.store.spi import Refused, Unknown
from lockkit_etcd.transport import Get, KeyOp, LeaseGone, LeaseTaken

__all__ = [
    "RIGHTS",
    "UNWELCOME",
    "Elsewhere",
    "Forbidden",
    "TokenExpired",
    "not_connected",
    "said",
    "unanswered",
]


class Elsewhere(Refused):
    """Refused by this member only: another member may execute the request."""


class TokenExpired(Refused):
    """Refused because the member does not know the login (any more): log in again and repeat the request."""


class Forbidden(Refused):
    """The user's role forbids the request. etcd does not name the missing right; :meth:`asked` adds it."""

    def asked(self, where: str, ops: Sequence[KeyOp]) -> Forbidden:
        """The same refusal, with the missing right and the command that grants it.

        Args:
            where: The member that refused.
            ops: The operations that were refused, on keys of one namespace.
        """
        doing = "read" if all(type(op) is Get for op in ops) else "write"
        prefix = b"/".join(ops[0].key.split(b"/")[:2]).decode(errors="replace") + "/"
        least = "; for commands that only inspect, read is enough" if doing == "read" else ""
        grant = f"etcdctl role grant-permission ROLE --prefix=true readwrite {prefix}"
        told = PermissionDenied(
            f"{where}: the user's role gives no right to {doing} {prefix}", hint=f"{grant}{least}; {RIGHTS}"
        )
        return Forbidden(told, retry=self.retry)


class _Row(NamedTuple):
    """One error of etcd: the exception for it, its text and its hint."""

    error: type[LockkitError]
    text: str
    hint: str
    retry: bool = False
    kind: type[Refused | Unknown] = Refused


RIGHTS = "see: lockkit docs etcd-role"
_LOGIN = "write etcd://user:password@host:2379; in a password write / ? # @ : as %2F %3F %23 %40 %3A"
_TABLE: dict[tuple[int, str], _Row] = {
    (3, "user name is empty"): _Row(PermissionDenied, "etcd requires a user and a password", _LOGIN),
    (3, "invalid user ID or password"): _Row(
        PermissionDenied, "user name or password is wrong", "check them: etcdctl user get NAME"
    ),
    (9, "authentication is not enabled"): _Row(
        PermissionDenied, "the URL has a login, but authentication is off in this etcd",
        "write the URL without user and password, or: etcdctl auth enable",
    ),
    (3, "too many operations in txn request"): _Row(
        BackendUnavailable, "its limit of operations in a transaction is lower than lockkit needs",
        "start etcd with --max-txn-ops of at least 128, its default",
    ),
    (3, "request is too large"): _Row(
        BackendUnavailable, "the request is larger than it accepts", "raise etcd's --max-request-bytes"
    ),
    (7, "permission denied"): _Row(
        PermissionDenied, "the user's role does not allow this", RIGHTS, kind=Forbidden
    ),
    (8, "database space exceeded"): _Row(
        BackendUnavailable, "its database is full (NOSPACE), so it accepts no writes",
        "etcdctl compact, defrag, then alarm disarm; "
        "see --quota-backend-bytes and --auto-compaction-retention",
        # A write under way while the last space is used up gets this answer and is stored all the same.
        kind=Unknown,
    ),
    (8, "too many requests"): _Row(
        BackendUnavailable, "it has too many requests at once",
        "this passes; if it does not, add members or spread the load", retry=True,
    ),
    (8, "larger than max"): _Row(
        BackendUnavailable, "the message is larger than it accepts", "raise etcd's --max-request-bytes"
    ),
    (11, "has been compacted"): _Row(
        BackendUnavailable,
        "the claim is damaged, and its holder cannot be told: what it was before has been compacted",
        "end its holder, then find its key and delete it: etcdctl get --prefix --keys-only lockkit/",
    ),
    (12, "not supported for learner"): _Row(
        BackendUnavailable, "it is a learner", "name the voting members", retry=True, kind=Elsewhere
    ),
    (14, "not supported for learner"): _Row(
        BackendUnavailable, "it is a learner", "name the voting members", retry=True, kind=Elsewhere
    ),
    (14, "no leader"): _Row(
        BackendUnavailable, "it has no leader", "this passes, if a majority of the members is up", retry=True,
        kind=Elsewhere,
    ),
    (16, "invalid auth token"): _Row(
        PermissionDenied, "the login has expired", "this passes", retry=True, kind=TokenExpired
    ),
    (3, "revision of auth store is old"): _Row(
        PermissionDenied, "users or roles have changed", "this passes", retry=True, kind=TokenExpired
    ),
}  # fmt: skip
_LEASES: dict[tuple[int, str], type[LeaseGone | LeaseTaken]] = {
    (5, "requested lease not found"): LeaseGone,
    (9, "lease already exists"): LeaseTaken,
}
_KEY = (3, "key not found")
"""The error of a Put that keeps the lease of its key, if another client has removed the key meanwhile."""


def said(code: int, message: str, where: str) -> Exception:
    """The exception to raise for an error that etcd answered with."""
    for (theirs, words), kind in _LEASES.items():
        if code == theirs and words in message:
            return kind(message)
    for (theirs, words), row in _TABLE.items():
        if code == theirs and words in message:
            told = row.error(f"{where}: {row.text}", hint=row.hint)
            return row.kind(told, retry=row.retry)
    if (code, _KEY[1]) == _KEY and _KEY[1] in message:
        return Refused(BackendUnavailable(f"{where}: the queue changed meanwhile", hint="try again"))
    return Unknown(OutcomeUnknown(f"{where}: {message}", hint="if it lasts, look at etcd's log"))


_UNVERIFIED = "CERTIFICATE_VERIFY_FAILED"
_ANOTHERS = re.compile(
    r"(?:Hostname|IP address) mismatch|is not in peer certificate|Hostname Verification Check failed"
)
"""OpenSSL's and gRPC's texts for a certificate of another host. gRPC's have no CERTIFICATE_VERIFY_FAILED."""


def _untrusted(text: str) -> str | None:
    """The hint for a certificate that cannot be verified; None if the text is about something else."""
    others = _ANOTHERS.search(text)
    if _UNVERIFIED not in text and not others:
        return None
    return trust_hint("mismatch" if others else text, ca_file=False)


UNWELCOME = "the server has ended the TLS handshake, probably because of the client's certificate"
"""The reason given when a TLS alert comes after the client has finished its part of the handshake."""


def not_connected(error: BaseException | str, where: str) -> Elsewhere:
    """The exception to raise if there is no connection to a member, so that nothing was sent."""
    text = str(error).partition("\n")[0].rstrip(".")
    if hint := _untrusted(text):
        return Elsewhere(BackendUnavailable(f"cannot trust {where}: {text}", hint=hint), retry=False)
    hint = "check hosts, ports (2379 is etcd's for clients) and TLS (etcds://); is it running?"
    if text.startswith(UNWELCOME):
        hint = (
            "write cert_file=PATH&key_file=PATH with a certificate of an authority "
            "that etcd trusts (--trusted-ca-file)"
        )
    return Elsewhere(BackendUnavailable(f"cannot reach {where}: {text}", hint=hint))


def unanswered(error: BaseException | str, where: str) -> Unknown:
    """The exception to raise for a request that may have been sent, and has no answer."""
    text = str(error).partition("\n")[0] or "time out"
    hint = "is it etcd's port for clients (2379)? With TLS write etcds://. If it is, look at etcd's log"
    return Unknown(OutcomeUnknown(f"no answer from {where}: {text}", hint=hint))
