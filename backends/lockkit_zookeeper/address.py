"""URLs of ZooKeeper: the servers, the login, who may read the nodes, and the length of the servers' ticks."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from lockkit.errors import ConfigError
from lockkit.facts import Capabilities
from lockkit.store import certificates
from lockkit.store.urls import ESCAPE, Url, at
from lockkit.values.durations import seconds
from lockkit_zookeeper.capabilities import CAPABILITIES

__all__ = ["Address", "declared", "least", "parse", "tick_warning"]

_MOST_TICKS = 20
"""Ticks in the longest timeout that a server grants, unless ``maxSessionTimeout`` is set."""
_OPTIONS = ("tick", "margin", "max_ttl", "auth", "observer", "tls", *certificates.OPTIONS)
_AUTH = ("digest", "sasl")
_GRACE = 6.0
"""Seconds for which a waiter of a living client may be silent; see :mod:`lockkit_zookeeper.entries`."""
_USAGE = "write zookeeper://host1:2181,host2:2181/chroot, or zookeepers:// for TLS"
_LOGIN = "write zookeeper://user:password@host"
_PORT = 2181


class Address(NamedTuple):
    """Servers, and how to talk to them.

    Attributes:
        shown: The URL without secrets.
        hosts: As ``host:port,host:port``.
        chroot: The path of the node above all others: empty, or beginning with a slash.
        auth: How to log in: ``digest`` or ``sasl`` (DIGEST-MD5).
        observer: ``user:hash`` of a digest login that may read the nodes created here; None for nobody else.
        tls: True to use TLS.
        files: The files for TLS.
        tick: Seconds; the servers' ``tickTime``.
        margin: Seconds by which validity ends before the session may.
        max_ttl: Seconds; the longest timeout that the servers grant.
    """

    shown: str
    hosts: str
    chroot: str
    user: str | None
    password: str | None
    auth: str
    observer: str | None
    tls: bool
    files: certificates.Files
    tick: float
    margin: float
    max_ttl: float

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def least(tick: float, margin: float) -> float:
    """The shortest ttl at which a healthy session always has half its timeout left, so no acquire waits.

    A basis is up to three ticks old; the margin is for a server that pauses, as for a garbage collection.
    """
    return round(2 * (3 * tick + margin), 3)


def tick_warning(shortest: float, tick: float) -> tuple[str, str]:
    """A sentence and a hint if ticks may be longer than thought, by the shortest session in seconds."""
    text = (
        f"the shortest session is {shortest:g} s, so a tick may be {shortest / 2:g} s, "
        f"longer than the {tick:g} s in use; then a lease may be thought valid for too long"
    )
    return text, f"look at tickTime in zoo.cfg; if it is {shortest / 2:g} s write ?tick={shortest / 2:g}"


def declared(address: Address) -> Capabilities:
    """Return the capabilities on servers whose ticks are as the URL says."""
    return CAPABILITIES._replace(
        min_ttl=least(address.tick, address.margin),
        max_ttl=address.max_ttl,
        waiter_deadline=max(address.max_ttl, _GRACE),
        margin=address.margin,
    )


def parse(url: str) -> Address:
    """Read a URL: ``zookeeper://[user:password@]host[:port][,host[:port]...][/chroot][?option=...]``.

    Raises:
        ConfigError: The URL is no such URL, or has an unknown option; the error says what is allowed.
    """
    read = Url(url, "ZooKeeper", _USAGE)
    options = read.options(_OPTIONS)
    tls = read.yes(options, "tls") or read.scheme == "zookeepers"
    if "@" in read.path or (":" in read.path and not read.places):
        raise read.wrong("there is a login in place of a path", f"{_LOGIN}; {ESCAPE}")
    user, password = read.login(_LOGIN, named=True)
    chroot = unquote(read.path).rstrip("/")
    if any(part in ("", ".", "..") for part in chroot.split("/")[1:]) or "\0" in chroot:
        raise read.wrong(f"the path cannot be that of a node: {read.veiled(chroot)!r}")
    auth = options.get("auth", "digest")
    if auth not in _AUTH:
        raise read.wrong(f"auth must be {' or '.join(_AUTH)}, not {read.veiled(auth)!r}", "")
    if "auth" in options and user is None:
        raise read.wrong(f"auth={auth} needs a user and a password", _LOGIN)
    tick = _span(read, options, "tick", CAPABILITIES.margin)
    margin = _span(read, options, "margin", tick)
    if margin < tick:
        raise read.wrong(
            f"margin must be at least one tick, {tick:g} s",
            "leave it out, or write the servers' tickTime as ?tick=",
        )
    max_ttl = _span(read, options, "max_ttl", _MOST_TICKS * tick)
    if max_ttl < least(tick, margin):
        raise read.wrong(
            f"max_ttl must be at least {least(tick, margin):g} s, the shortest ttl with ticks of {tick:g} s",
            "leave it out; for shorter ttls lower tickTime on the servers and write the same as ?tick=",
        )
    return Address(
        shown=read.shown,
        hosts=",".join(at(*host) for host in read.hosts(_PORT)),
        chroot=chroot,
        user=user,
        password=password,
        auth=auth,
        observer=_observer(read, options),
        tls=tls,
        files=certificates.read_files(read, options, None if tls else "write zookeepers://"),
        tick=tick,
        margin=margin,
        max_ttl=max_ttl,
    )


def _span(url: Url, options: dict[str, str], option: str, default: float) -> float:
    if option not in options:
        return default
    try:
        return seconds(float(options[option]), what=option)
    except ConfigError as error:
        raise url.wrong(f"{option} must be a number of seconds: {error}", "") from None
    except ValueError:
        told = url.veiled(options[option])
        raise url.wrong(f"{option} must be a number of seconds, not {told!r}", "") from None


def _observer(url: Url, options: dict[str, str]) -> str | None:
    observer = options.get("observer")
    if observer is None:
        return None
    # A "+" of the hash is a blank in a query unless it is escaped, and a hash has no blanks.
    observer = observer.replace(" ", "+")
    if not re.fullmatch(r"[^:\s]+:[A-Za-z0-9+/]{27}=", observer):
        raise url.wrong(
            "observer must be a user and the hash of its login, user:hash",
            "make the hash with: printf 'user:password' | openssl dgst -sha1 -binary | base64",
        )
    return observer
