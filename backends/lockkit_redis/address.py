"""What a URL says: where the server is, how to log in, and the few options there are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from lockkit.errors import ConfigError
from lockkit.settings import redact

__all__ = ["Address", "parse"]

_TLS = {
    "ca_file": "ssl_ca_certs",
    "cert_file": "ssl_certfile",
    "key_file": "ssl_keyfile",
}
_OPTIONS = (*_TLS, "db", "min_replicas")


class Address(NamedTuple):
    """A server and how to talk to it.

    Attributes:
        shown: The URL without secrets.
        socket: A path, for a Unix socket.
        tls: Keyword arguments for redis-py's TLS connection; None for none.
        min_replicas: How many replicas must confirm an acquire.
    """

    shown: str
    host: str
    port: int
    socket: str | None
    db: int
    user: str | None
    password: str | None
    tls: dict[str, Any] | None
    min_replicas: int


def parse(url: str) -> Address:
    """Read ``redis://[user:password@]host[:port][/db][?option=...]``, ``rediss://`` (TLS) or ``unix:///path``.

    Raises:
        ConfigError: It is none of these, or has an option that does not exist; the error says what is allowed.
    """
    shown = redact(url)
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError as error:
        raise ConfigError(f"not a Redis URL: {shown}: {error}", hint=_USAGE) from None
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - set(_OPTIONS))
    if unknown or parts.fragment:
        raise ConfigError(
            f"{shown}: no such option: {', '.join(unknown) or parts.fragment}",
            hint=f"the options: {', '.join(_OPTIONS)}",
        )
    secure = parts.scheme in ("rediss", "valkeys")
    path, socket = parts.path, None
    if parts.scheme == "unix":
        if parts.hostname or not path.startswith("/"):
            raise ConfigError(
                f"{shown}: a socket is named by its absolute path", hint="unix:///run/redis.sock?db=0"
            )
        path, socket = "", unquote(path)
    tls = {theirs: _file(options[ours], ours, shown) for ours, theirs in _TLS.items() if ours in options}
    if tls and not secure:
        raise ConfigError(
            f"{shown}: {', '.join(sorted(set(_TLS) & set(options)))} needs TLS", hint="write rediss://"
        )
    database = path.strip("/") or options.get("db", "0")
    if path.strip("/") and "db" in options:
        raise ConfigError(f"{shown}: the database is named twice", hint="write /0 or ?db=0, not both")
    return Address(
        shown=shown,
        host=parts.hostname or "localhost",
        port=port,
        socket=socket,
        db=_number(database, "the database", shown),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password is not None else None,
        tls=tls if secure else None,
        min_replicas=_number(options.get("min_replicas", "0"), "min_replicas", shown),
    )


_USAGE = "write redis://host:6379/0, rediss://host:6379/0 or unix:///run/redis.sock"


def _number(text: str, what: str, shown: str) -> int:
    if not text.isdecimal() or len(text) > 6:
        raise ConfigError(f"{shown}: {what} must be a whole number, not {text!r}", hint=_USAGE)
    return int(text)


def _file(path: str, option: str, shown: str) -> str:
    """A file that can be read: a wrong path must not look like a wrong certificate."""
    place = Path(path).expanduser()
    if not os.access(place, os.R_OK):
        raise ConfigError(f"{shown}: {option}: cannot read {place}")
    return str(place)
