"""Errors of connecting: there is no connection, or one to another kind of server. No lock was asked for yet.

An error that time or a restart may fix is worth another try. One that only another URL, file or right can fix
is raised at once, and is a ConfigError where it is the URL or a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import redis.exceptions as theirs

from lockkit.errors import BackendUnavailable, ConfigError
from lockkit.store.connecting import Place
from lockkit.store.handshakes import handshake_error
from lockkit.store.spi import Refused
from lockkit.store.urls import at
from lockkit_redis.address import Address
from lockkit_redis.failures import Whence, meaning, replied

__all__ = [
    "none_of",
    "not_connected",
    "of_a_sentinel",
    "of_another_kind",
    "refused_at_login",
    "unknown_service",
]

_SIGNER = "use a certificate signed by the authority that the server trusts (tls-ca-cert-file)"
_PLAIN = "write redis:// if it is Redis without TLS, and leave out tls=yes"
_LOGIN = "?sentinel_user=...&sentinel_password=... is for the sentinels"


def refused_at_login(error: Exception, whence: Whence, address: Address) -> Refused:
    """The error for a connection that could not be made, or whose login was refused."""
    answer = replied(error, whence) if meaning(error) else None
    return answer if isinstance(answer, Refused) else not_connected(error, whence.where, address)


def not_connected(error: BaseException, where: str, address: Address) -> Refused:
    """The error for a connection that could not be made, so that nothing was sent."""
    text = str(error).partition("\n")[0].rstrip(".")
    if isinstance(error, theirs.InvalidResponse):
        hint = "check host and port"
        if address.tls is None:
            hint += "; if it speaks TLS, write rediss://, or with Sentinel or a Cluster tls=yes"
        told = ConfigError(f"{where}: the server there is no Redis: {text}", hint=hint)
        return Refused(told, retry=False)
    known = address.tls is not None and address.tls.ca_file is not None
    failed = handshake_error(text, where, ca_file=known, signer=_SIGNER, plain=_PLAIN)
    if failed is not None:
        return Refused(failed, retry=False)
    return Refused(BackendUnavailable(f"cannot reach {where}: {text}", hint=_reach(address)))


def _reach(address: Address) -> str:
    if address.socket is not None:
        return (
            "is the server running? CONFIG GET unixsocket gives the path of its socket, "
            "unixsocketperm the rights on it"
        )
    if address.tls is not None and address.tls.cert_file is None:
        return (  # a server that wants a certificate may simply hang up
            "check host, port and TLS; is it running? "
            "If it wants a client's certificate, add cert_file=...&key_file=..."
        )
    return "check host, port and TLS; is it running?"


_KINDS = {
    "cluster": ("is part of a Cluster", "write redis+cluster://{at}{tls}"),
    "sentinel": ("is a sentinel, which keeps no locks", "write redis+sentinel://{at}/SERVICE{tls}"),
    "standalone": ("is not part of a Cluster", "write {plain}://{at}"),
}


def of_another_kind(mode: str, place: Place, address: Address) -> Refused | None:
    """The error for a server in this mode (as HELLO says), if the URL is for another kind."""
    if mode == ("cluster" if address.cluster else "standalone") or mode not in _KINDS:
        return None
    there = "HOST:PORT" if isinstance(place, str) else at(*place)
    what, hint = _KINDS[mode]
    who = "it" if address.service is None and len(address.hosts) == 1 else there
    tls = "?tls=yes" if address.tls is not None else ""
    plain = "rediss" if address.tls is not None else "redis"
    told = ConfigError(f"{address.shown}: {who} {what}", hint=hint.format(at=there, tls=tls, plain=plain))
    return Refused(told, retry=False)


def of_a_sentinel(error: Exception, where: str) -> Refused:
    """The error for a sentinel that does not name the primary, or for a server that is no sentinel."""
    if meaning(error) == "UNKNOWN":
        hint = f"name the sentinels, as a rule at port 26379; for this server alone write redis://{where}"
        return Refused(ConfigError(f"{where} is no sentinel", hint=hint), retry=False)
    answer = replied(error, SimpleNamespace(where=where, namespace=""))
    told = type(answer.error)(
        answer.error.message, hint=f"{_LOGIN}; is it one? Their port is 26379 as a rule"
    )
    return Refused(told, retry=isinstance(answer, Refused) and answer.retry)


def unknown_service(service: str, where: str) -> Refused:
    """The error for a sentinel that knows no primary of that name."""
    hint = (
        "the path of the URL is the sentinels' name for the primary: "
        "redis-cli -p PORT SENTINEL MASTERS lists the names"
    )
    return Refused(ConfigError(f"{where} knows no {service!r}", hint=hint), retry=False)


def none_of(refusals: Sequence[Refused], where: str) -> Refused:
    """One error for several servers. Another try is of no use if it is of no use at each of them."""
    last = [refusal for refusal in refusals if not refusal.retry]
    first = (last or refusals)[0].error
    final = len(last) == len(refusals)
    kind = type(first) if final else BackendUnavailable
    text = "; ".join(dict.fromkeys(refusal.error.message for refusal in refusals))
    return Refused(kind(f"{where}: {text}", hint=first.hint), retry=not final)
