"""What a URL says: where the server is, how to log in, and the few options there are."""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from lockkit.errors import ConfigError
from lockkit.settings import redact, veiled
from lockkit_redis.tls import FILES, tls_of

__all__ = ["Address", "at", "parse"]

_COMMON = ("db", "min_replicas", *FILES)
_OPTIONS = {
    "redis+sentinel": (*_COMMON, "tls", "sentinel_user", "sentinel_password"),
    "redis+cluster": ("min_replicas", "tls", *FILES),
}
_PORTS = {"redis+sentinel": 26379}


class Address(NamedTuple):
    """A server, or who knows where it is, and how to talk to it.

    Attributes:
        shown: The URL without secrets.
        hosts: Host and port of the server; for Sentinel, of the sentinels.
        socket: A path, for a Unix socket.
        service: What the sentinels call the primary; None without Sentinel.
        cluster: ``hosts`` are nodes of a Cluster.
        sentinel: User and password for the sentinels.
        tls: Keyword arguments for redis-py's TLS connection; None for none.
        min_replicas: How many replicas must confirm an acquire.
    """

    shown: str
    hosts: tuple[tuple[str, int], ...]
    socket: str | None
    service: str | None
    cluster: bool
    db: int
    user: str | None
    password: str | None
    sentinel: tuple[str | None, str | None]
    tls: dict[str, Any] | None
    min_replicas: int

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def parse(url: str) -> Address:
    """Read a URL.

    ``redis://[user:password@]host[:port][/db][?option=...]``, ``rediss://`` (TLS), ``unix:///path``,
    ``redis+sentinel://[user:password@]host[:port],host[:port]/service[/db]`` and
    ``redis+cluster://[user:password@]host[:port],host[:port]``; with Valkey's name in place of Redis's the same.

    Raises:
        ConfigError: It is none of these, or has an option that does not exist; the error says what is allowed.
    """
    shown = redact(url)
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may quote what stands before the "@"
        raise ConfigError(f"not a Redis URL: {shown}", hint=_USAGE) from None
    scheme = parts.scheme.replace("valkey", "redis", 1)
    usage = _USAGES.get(scheme, _USAGE)
    if scheme != "unix" and not url[len(parts.scheme) :].startswith("://"):
        raise ConfigError(f"{shown}: a host stands behind two slashes", hint=usage)
    options = _options(parts, scheme, shown)
    if "@" in parts.path or (":" in parts.path and not parts.netloc and scheme != "unix"):
        raise ConfigError(
            f"{shown}: a login stands where the database or the path would be", hint=f"{_LOGIN}; {_ESCAPE}"
        )
    login, _, places = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    if login and not colon:
        raise ConfigError(
            "a URL for Redis has a user and no password, or a password without its colon", hint=_LOGIN
        )
    path = unquote(parts.path)
    socket = service = None
    if scheme == "unix":
        if places or not path.startswith("/"):
            raise ConfigError(
                f"{shown}: a socket is named by its absolute path", hint="unix:///run/redis.sock?db=0"
            )
        path, socket = "", path
    elif scheme == "redis+sentinel":
        service, _, path = path.strip("/").partition("/")
        if not service:
            raise ConfigError(f"{shown}: which service?", hint=usage)
    database = path.strip("/")
    if database and scheme == "redis+cluster":
        raise ConfigError(f"{shown}: a Cluster has no databases", hint=usage)
    if "," in places and scheme not in _OPTIONS:
        raise ConfigError(
            f"{shown}: one host, please", hint="several are for redis+sentinel:// and redis+cluster://"
        )
    if database and "db" in options:
        raise ConfigError(f"{shown}: the database is named twice", hint="write /0 or ?db=0, not both")
    return Address(
        shown=shown,
        hosts=tuple(_place(each, _PORTS.get(scheme, 6379)) for each in places.split(",")),
        socket=socket,
        service=service,
        cluster=scheme == "redis+cluster",
        db=_number(database or options.get("db", "0"), "the database", shown),
        user=unquote(user) or None,
        password=unquote(password) if colon else None,
        sentinel=(options.get("sentinel_user"), options.get("sentinel_password")),
        tls=tls_of(options, shown, secure=scheme == "rediss" or options.get("tls") == "yes"),
        min_replicas=_number(options.get("min_replicas", "0"), "min_replicas", shown),
    )


def at(host: str, port: int) -> str:
    """Host and port as they are written in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_USAGE = "write redis://host:6379/0, rediss://host:6379/0 or unix:///run/redis.sock"
_USAGES = {
    "redis+sentinel": "write redis+sentinel://host1,host2,host3/mymaster/0",
    "redis+cluster": "write redis+cluster://host1:6379,host2:6379",
}
_LOGIN = "write redis://:password@host, or redis://user:password@host"
_ESCAPE = "in a password write / ? # @ : as %2F %3F %23 %40 %3A"


def _options(parts: SplitResult, scheme: str, shown: str) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    allowed = _OPTIONS.get(scheme, _COMMON)
    unknown = sorted(options.keys() - set(allowed))
    if (unknown or parts.fragment) and "@" in parts.query + parts.fragment:
        raise ConfigError(f"{shown}: no such option", hint=_ESCAPE)
    if unknown or parts.fragment:
        raise ConfigError(
            f"{shown}: no such option: {', '.join(veiled(each, shown) for each in unknown) or veiled(parts.fragment, shown)}",
            hint=f"the options: {', '.join(allowed)}",
        )
    if options.get("tls", "yes") not in ("yes", "no"):
        raise ConfigError(f"{shown}: tls is yes or no, not {veiled(options['tls'], shown)!r}")
    return options


def _place(text: str, port: int) -> tuple[str, int]:
    """``host``, ``host:port`` or ``[address]:port``."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]*))(?::([0-9]{1,5}))?", text)
    if match is None or int(match[3] or port) > 65535:
        # Not the URL, and nothing behind a colon: where "@host" was forgotten, that is the password.
        told = text.partition(":")[0] + (":..." if ":" in text else "")
        raise ConfigError(f"not a host and port in a URL for Redis: {told!r}", hint=f"{_USAGE}; {_ESCAPE}")
    host = unquote(match[1] or match[2]) or "localhost"
    try:
        host.encode("idna")
    except UnicodeError:
        raise ConfigError(f"not a host in a URL for Redis: {host[:40]!r}", hint=_USAGE) from None
    return host, int(match[3] or port)


def _number(text: str, what: str, shown: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 6:
        raise ConfigError(f"{shown}: {what} must be a whole number, not {veiled(text, shown)!r}", hint=_USAGE)
    return int(text)
