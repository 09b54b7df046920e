"""Proxies in front of the server: their headers count only if the configuration names them.

Anybody can send ``X-Forwarded-For`` and ``X-Forwarded-Proto``. A proxy appends the address of its client to
the first one, so that is read from its end, up to the first address that is no proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from starlette.datastructures import Headers

from lockkit.errors import ConfigError
from lockkit.lib.namedtuples import NamedTuple

if TYPE_CHECKING:
    from starlette.types import Scope

__all__ = ["Proxies", "Sender"]

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class Sender(NamedTuple):
    """Where a request comes from.

    Attributes:
        peer: The address that is at the other end of the connection; empty if it is not known.
        forwarded_for: The address that a trusted proxy got the request from; empty if none says so.
        secure: Whether the request came over TLS, as far as the server or a trusted proxy knows.
    """

    peer: str
    forwarded_for: str
    secure: bool


class Proxies:
    """The proxies that are trusted.

    Args:
        given: Their addresses, such as ``10.0.0.7``, or networks, such as ``10.0.0.0/24``.

    Raises:
        ConfigError: One is neither.
    """

    def __init__(self, given: Iterable[str]) -> None:
        self._networks = tuple(map(_network, given))

    def sender(self, scope: Scope) -> Sender:
        """Where the request comes from."""
        peer = str((scope.get("client") or ("",))[0])
        secure = scope.get("scheme") == "https"
        if not self._trusted(_address(peer)):
            return Sender(peer, "", secure)
        headers = Headers(scope=scope)
        scheme = ",".join(headers.getlist("x-forwarded-proto")).rpartition(",")[2].strip().lower()
        return Sender(peer, self._first(headers), scheme == "https" if scheme else secure)

    def _first(self, headers: Headers) -> str:
        """The last address that is no proxy; the first one of all if all are."""
        found = ""
        for text in reversed(",".join(headers.getlist("x-forwarded-for")).split(",")):
            address = _address(text.strip())
            if address is None:
                return found
            found = str(address)
            if not self._trusted(address):
                return found
        return found

    def _trusted(self, address: _Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError:
        raise ConfigError(
            f"serve.proxies has addresses and networks, not {text!r}",
            hint="for instance 10.0.0.7 or 10.0.0.0/24",
        ) from None


def _address(text: str) -> _Address | None:
    """The address in a text, perhaps with a port; None if there is none. IPv4 in IPv6 becomes IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
