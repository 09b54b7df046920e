"""What a URL says: where the members are, how to log in, and the few options there are."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from lockkit.errors import ConfigError
from lockkit.settings import redact, veiled

__all__ = ["Address", "parse"]

_FILES = ("ca_file", "cert_file", "key_file")
_USAGE = "write etcd://host1:2379,host2:2379,host3:2379, or etcds:// for TLS"
_LOGIN = "write etcd://user:password@host"
_ESCAPE = "in a password write / ? # @ : as %2F %3F %23 %40 %3A"


class Address(NamedTuple):
    """The members of a cluster, and how to talk to them.

    Attributes:
        shown: The URL without secrets.
        hosts: Host and port of each member that was named.
        tls: Speak TLS.
        ca_file: Whom to trust; None for those whom the operating system trusts.
        cert_file, key_file: What to show of oneself; None for nothing.
    """

    shown: str
    hosts: tuple[tuple[str, int], ...]
    user: str | None
    password: str | None
    tls: bool
    ca_file: str | None
    cert_file: str | None
    key_file: str | None

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def parse(url: str) -> Address:
    """Read a URL.

    ``etcd://[user:password@]host[:port][,host[:port]...][?option=...]``; ``etcds://`` for TLS; ``etcd+grpc://`` and
    ``etcds+grpc://`` for the same by way of python-etcd3.

    Raises:
        ConfigError: It is none of these, or has an option that does not exist; the error says what is allowed.
    """
    shown = redact(url)
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may quote what stands before the "@"
        raise ConfigError(f"not an etcd URL: {shown}", hint=_USAGE) from None
    tls = parts.scheme.startswith("etcds")
    options = _options(parts, shown, tls=tls)
    login, _, places = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    if login and not (user and colon):
        raise ConfigError(
            "a URL for etcd has a password without its user, or the other way round", hint=_LOGIN
        )
    if parts.path.strip("/"):
        raise ConfigError(f"{shown}: etcd has no databases", hint=f"use a namespace instead; {_USAGE}")
    return Address(
        shown=shown,
        hosts=tuple(_place(each) for each in places.split(",")),
        user=unquote(user) or None,
        password=unquote(password) if colon else None,
        tls=tls,
        **{name: _file(options[name], name, shown) if name in options else None for name in _FILES},
    )


def _options(parts: SplitResult, shown: str, *, tls: bool) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - set(_FILES))
    if (unknown or parts.fragment) and "@" in parts.query + parts.fragment:
        raise ConfigError(f"{shown}: no such option", hint=_ESCAPE)
    if unknown or parts.fragment:
        raise ConfigError(
            f"{shown}: no such option: {', '.join(veiled(each, shown) for each in unknown) or veiled(parts.fragment, shown)}",
            hint=f"the options: {', '.join(_FILES)}",
        )
    if options and not tls:
        raise ConfigError(f"{shown}: {', '.join(sorted(options))} needs TLS", hint="write etcds://")
    if ("cert_file" in options) != ("key_file" in options):
        raise ConfigError(f"{shown}: a certificate needs its key, and the key its certificate")
    return options


def _place(text: str) -> tuple[str, int]:
    """``host``, ``host:port`` or ``[address]:port``."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]*))(?::([0-9]{1,5}))?", text)
    if match is None or int(match[3] or 2379) > 65535:
        # Not the URL, and nothing behind a colon: where "@host" was forgotten, that is the password.
        told = text.partition(":")[0] + (":..." if ":" in text else "")
        raise ConfigError(f"not a host and port in a URL for etcd: {told!r}", hint=f"{_USAGE}; {_ESCAPE}")
    host = unquote(match[1] or match[2]) or "localhost"
    try:
        host.encode("idna")
    except UnicodeError:
        raise ConfigError(f"not a host in a URL for etcd: {host[:40]!r}", hint=_USAGE) from None
    return host, int(match[3] or 2379)


def _file(path: str, option: str, shown: str) -> str:
    """A file that can be read: a wrong path must not look like a wrong certificate."""
    place = Path(path).expanduser()
    if not os.access(place, os.R_OK):
        raise ConfigError(f"{shown}: {option}: cannot read {veiled(path, shown)}")
    return str(place)
