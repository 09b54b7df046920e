"""What a URL says: which servers, how to log in, whose the nodes are, and how long the servers' ticks are."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from lockkit.durations import seconds
from lockkit.errors import ConfigError
from lockkit.facts import Capabilities
from lockkit.settings import redact, veiled
from lockkit_zookeeper.capabilities import CAPABILITIES

__all__ = ["Address", "declared", "parse"]

_MOST_TICKS = 20
"""What a server grants unless ``maxSessionTimeout`` says otherwise."""
_TLS = ("ca_file", "cert_file", "key_file")
_OPTIONS = ("tick", "margin", "max_ttl", "auth", "observer", "tls", *_TLS)
_AUTH = ("digest", "sasl")
_GRACE = 6.0
"""Seconds that a waiter of a living client may be silent; see :mod:`lockkit_zookeeper.entries`."""
_USAGE = "write zookeeper://host1:2181,host2:2181/chroot, or zookeepers:// for TLS"
_LOGIN = "write zookeeper://user:password@host; in a password write / ? # @ : as %2F %3F %23 %40 %3A"


class Address(NamedTuple):
    """Servers, and how to talk to them.

    Attributes:
        shown: The URL without secrets.
        hosts: As ``host:port,host:port``.
        chroot: Where all of it lies: empty, or a path that begins with a slash.
        auth: How user and password are shown: ``digest`` or ``sasl`` (DIGEST-MD5).
        observer: ``user:hash`` of the scheme ``digest`` that may read what is made here; None for nobody else.
        tls: Whether to speak TLS, with the files to use.
        tick: Seconds; the servers' ``tickTime``.
        margin: Seconds by which validity ends before the session may.
        max_ttl: Seconds; what the servers grant at most.
    """

    shown: str
    hosts: str
    chroot: str
    user: str | None
    password: str | None
    auth: str
    observer: str | None
    tls: bool
    ca_file: str | None
    cert_file: str | None
    key_file: str | None
    tick: float
    margin: float
    max_ttl: float

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def least(tick: float, margin: float) -> float:
    """The shortest ttl at which a healthy session never has less than half of its timeout left, which an acquire waits for.

    A basis is up to three ticks old; a margin more is for a server that stands still for a while, as for a collection.
    """
    return round(2 * (3 * tick + margin), 3)


def declared(address: Address) -> Capabilities:
    """What the store can do with servers whose ticks are as the URL says."""
    return CAPABILITIES._replace(
        min_ttl=least(address.tick, address.margin),
        max_ttl=address.max_ttl,
        waiter_deadline=max(address.max_ttl, _GRACE),
        margin=address.margin,
    )


def parse(url: str) -> Address:
    """Read a URL: ``zookeeper://[user:password@]host[:port][,host[:port]...][/chroot][?option=...]``.

    Raises:
        ConfigError: It is no such URL, or has an option that does not exist; the error says what is allowed.
    """
    shown = redact(url)
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may quote what stands before the "@"
        raise ConfigError(f"not a ZooKeeper URL: {shown}", hint=_USAGE) from None
    options = _options(parts, shown)
    if "@" in parts.path or (":" in parts.path and not parts.netloc):
        raise ConfigError(f"{shown}: a login stands where the path of a node would be", hint=_LOGIN)
    login, _, places = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    if (login or "@" in parts.netloc) and not (colon and user):
        raise ConfigError(
            "a URL for ZooKeeper has a user and no password, or a password and no user", hint=_LOGIN
        )
    chroot = unquote(parts.path).rstrip("/")
    if any(part in ("", ".", "..") for part in chroot.split("/")[1:]) or "\0" in chroot:
        raise ConfigError(f"{shown}: not a path of a node: {veiled(chroot, shown)!r}", hint=_USAGE)
    auth = options.get("auth", "digest")
    if auth not in _AUTH:
        raise ConfigError(f"{shown}: auth is {' or '.join(_AUTH)}, not {veiled(auth, shown)!r}")
    if "auth" in options and not login:
        raise ConfigError(f"{shown}: auth={auth} needs a user and a password", hint=_LOGIN)
    tick = _span(options, "tick", CAPABILITIES.margin, shown)
    margin = _span(options, "margin", tick, shown)
    if margin < tick:
        raise ConfigError(
            f"{shown}: margin must be at least one tick, {tick:g} s",
            hint="leave it out, or write the servers' tickTime as ?tick=",
        )
    max_ttl = _span(options, "max_ttl", _MOST_TICKS * tick, shown)
    if max_ttl < least(tick, margin):
        raise ConfigError(
            f"{shown}: max_ttl must be at least {least(tick, margin):g} s, the shortest ttl with ticks of {tick:g} s",
            hint="leave it out; for shorter ttls lower tickTime on the servers and write the same as ?tick=",
        )
    tls = parts.scheme == "zookeepers" or options.get("tls") == "yes"
    return Address(
        shown=shown,
        hosts=",".join(_place(each) for each in places.split(",")),
        chroot=chroot,
        user=unquote(user) or None,
        password=unquote(password) if colon else None,
        auth=auth,
        observer=_observer(options, shown),
        tls=tls,
        tick=tick,
        margin=margin,
        max_ttl=max_ttl,
        **_files(options, shown, tls=tls),
    )


def _options(parts: SplitResult, shown: str) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - set(_OPTIONS))
    if unknown or parts.fragment:
        if "@" in parts.query + parts.fragment:
            raise ConfigError(f"{shown}: no such option", hint=_LOGIN)
        raise ConfigError(
            f"{shown}: no such option: {', '.join(veiled(each, shown) for each in unknown) or veiled(parts.fragment, shown)}",
            hint=f"the options: {', '.join(_OPTIONS)}",
        )
    if options.get("tls", "yes") not in ("yes", "no"):
        raise ConfigError(f"{shown}: tls is yes or no, not {veiled(options['tls'], shown)!r}")
    return options


def _span(options: dict[str, str], option: str, default: float, shown: str) -> float:
    if option not in options:
        return default
    try:
        return seconds(float(options[option]), what=option)
    except ConfigError as error:
        raise ConfigError(f"{shown}: {option} is a number of seconds: {error}") from None
    except ValueError:
        told = veiled(options[option], shown)
        raise ConfigError(f"{shown}: {option} is a number of seconds, not {told!r}") from None


def _observer(options: dict[str, str], shown: str) -> str | None:
    observer = options.get("observer")
    if observer is None:
        return None
    # A "+" of the hash is a blank in a query unless it is escaped, and a hash has no blanks.
    observer = observer.replace(" ", "+")
    if not re.fullmatch(r"[^:\s]+:[A-Za-z0-9+/]{27}=", observer):
        raise ConfigError(
            f"{shown}: observer is a user and the hash of its login",
            hint="printf 'user:password' | openssl dgst -sha1 -binary | base64 makes the hash; write user:hash",
        )
    return observer


def _files(options: dict[str, str], shown: str, *, tls: bool) -> dict[str, str | None]:
    given = [option for option in _TLS if option in options]
    if given and not tls:
        raise ConfigError(f"{shown}: {', '.join(given)} needs TLS", hint="write zookeepers://")
    files: dict[str, str | None] = dict.fromkeys(_TLS)
    for option in given:
        place = Path(options[option]).expanduser()
        if not (
            place.is_file() and os.access(place, os.R_OK)
        ):  # a wrong path must not look like a wrong certificate
            raise ConfigError(f"{shown}: {option}: cannot read {veiled(options[option], shown)}")
        files[option] = str(place)
    _look(files, options, shown)
    return files


def _look(files: dict[str, str | None], stated: dict[str, str], shown: str) -> None:
    """Look at the files before they are used: what OpenSSL says of them names none, and would look like the network."""

    def unfit(option: str, what: str, hint: str) -> ConfigError:
        return ConfigError(f"{shown}: {option}: {veiled(stated[option], shown)} {what}", hint=hint)

    ca, certificate, key = (files[option] for option in _TLS)
    for option, file in (("ca_file", ca), ("cert_file", certificate)):
        try:
            if file is not None:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        except ssl.SSLError:
            hint = f"{option} is a file in PEM form, with -----BEGIN CERTIFICATE----- in it"
            raise unfit(option, "is no certificate", hint) from None
    if key is not None and certificate is None:
        hint = "add cert_file=PATH, the certificate that belongs to this key"
        raise unfit("key_file", "is of no use without a certificate", hint)
    if certificate is None:
        return
    where = "cert_file" if key is None else "key_file"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=_ask)
    except _PassphraseWanted:
        hint = "lockkit asks nobody for it: openssl pkey -in FILE -out FILE2 writes the key without"
        raise unfit(where, "has a key with a passphrase", hint) from None
    except ssl.SSLError as error:
        if "MISMATCH" in str(error):
            raise unfit(where, "is not the key of cert_file", "name the two that belong together") from None
        hint = f"{where} is a file in PEM form, with -----BEGIN PRIVATE KEY----- in it"
        raise unfit(where, "has no key in it", hint) from None


class _PassphraseWanted(Exception):
    pass


def _ask() -> str:
    raise _PassphraseWanted


def _place(text: str) -> str:
    """``host``, ``host:port`` or ``[address]:port``."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]*)(?::([0-9]{1,5}))?", text)
    if match is None or int(match[2] or 1) > 65535:
        # Not the URL, and nothing behind a colon: where "@host" was forgotten, that is the password.
        told = text.partition(":")[0] + (":..." if ":" in text else "")
        raise ConfigError(f"not a host and port in a URL for ZooKeeper: {told!r}", hint=_USAGE)
    return f"{match[1] or 'localhost'}:{match[2] or 2181}"
