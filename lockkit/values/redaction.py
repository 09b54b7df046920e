"""Redaction of URLs. Only parts that are known to be harmless are shown; every other part becomes ``***``.

In a misspelt URL a password can be anywhere. So only parts known to be harmless are shown, never parts that
merely do not look like a password: each must have the right form, and only listed options are shown. A URL
that cannot be parsed is shown as its scheme and ``***``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import unquote, unquote_plus

from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable

__all__ = [
    "HIDDEN",
    "SHIPPED",
    "declare",
    "redact",
    "redact_name",
    "scrub_error",
    "veiled",
    "without_login",
]

_TLS = ("ca_file", "cert_file", "key_file")
_REDIS = frozenset(("db", "min_replicas", "tls", "sentinel_user", *_TLS))
_ETCD = frozenset(_TLS)
_ZOOKEEPER = frozenset(("tick", "margin", "max_ttl", "auth=digest", "auth=sasl", "tls", *_TLS))

SHIPPED: Mapping[str, frozenset[str]] = {
    "memory": frozenset(),
    "sqlite": frozenset(("synchronous",)),
    "unix": _REDIS,
    **{
        f"{name}{more}": _REDIS for name in ("redis", "valkey") for more in ("", "s", "+cluster", "+sentinel")
    },
    **{f"etcd{more}": _ETCD for more in ("", "s", "+grpc", "s+grpc")},
    **dict.fromkeys(("zookeeper", "zookeepers", "zk"), _ZOOKEEPER),
}
"""The harmless options of lockkit's own stores, by scheme, known before any import; see :func:`declare`."""

_declared: dict[str | None, frozenset[str]] = {None: frozenset()}

# Patterns, and not compiled: re compiles those in use, and a program seldom needs more than two of them.
_URL = r"(?s)([A-Za-z][A-Za-z0-9+.-]*):([^?#]*)(\??)([^#]*)"
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[\w.~-]*)(?::[0-9]{1,5})?"
_SERVERS = rf"(?s)//(?:(?P<login>[^/]*)@)?(?P<hosts>{_HOST}(?:,{_HOST})*)(?P<path>(?:/[^:@]*)?)"
_USER = r"[\w.%~+-]*"
_PATHS = {
    # The path may contain an @, as in /home/ann@corp; one with a colon before the @ is hidden as a login.
    "sqlite": r"(?s)[^:@/][^:@]*|(?:(?:/|///+)(?!/)(?:[^:@]*@)?[^@]*)?",
    "memory": r"(?s)(?://)?[^:@/]*/?",
    "unix": r"(?s)(?://)?/[^@/][^@]*",
}
_FOLDER = r"(?s)/(?!/)[^:@]*"
_KEY = r"[A-Za-z][A-Za-z0-9_]{0,31}"
HIDDEN = "***"
"""The text in place of a secret."""
_LAST_PORT = 65535
_SCRUBBED = 4
"""The shortest secret that is searched for in error texts; a shorter one occurs in many ordinary words."""


def declare(scheme: str | None, options: Iterable[str]) -> None:
    """Record the harmless options of a third party's store. The lists of lockkit's own stores stay.

    Args:
        scheme: The URL scheme, in lower case; None for options that the query of every URL may have.
        options: Names of options, or ``name=value`` if only that value is harmless.
    """
    _declared[scheme] = frozenset(options)
    _parts.cache_clear()


def redact(url: str) -> str:
    """Replace the secret parts of a URL by ``***``. Scheme, hosts, path, user and harmless options are shown.

    The path is shown only for a scheme of a loaded store. An unparsable URL becomes its scheme and ``***``.
    """
    parts = _parts(url)
    return printable(parts.shown) if parts is not None else HIDDEN


def redact_name(text: str) -> str:
    """Redact the name of a profile, a key or a plugin if it may be a URL or part of one."""
    return redact(text) if ":" in text or "@" in text else text


def veiled(part: str, shown: str) -> str:
    """Redact a part of a URL for an error: shown if the redacted URL has it, escaped or not; else ``***``."""
    return part if part in shown or part in unquote(shown) or part in unquote_plus(shown) else HIDDEN


def scrub(text: str, url: str) -> str:
    """Remove the parts of a URL that :func:`redact` hides from a text of a library or a plugin."""
    parts = _parts(url)
    found = text.replace(url, redact(url))
    for secret in parts.hidden if parts is not None else ():
        for spelling in dict.fromkeys((secret, unquote(secret), unquote_plus(secret))):
            if len(spelling) >= _SCRUBBED:
                found = found.replace(spelling, HIDDEN)
    return found


def scrub_error(error: BaseException, url: str) -> None:
    """Apply :func:`scrub` to the texts of an error, and of the errors that led to it, in place."""
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or any(one is other for other in seen):
            continue
        seen.append(one)
        one.args = tuple(scrub(each, url) if isinstance(each, str) else each for each in one.args)
        for key, value in list(vars(one).items()):
            if isinstance(value, str):
                setattr(one, key, scrub(value, url))
            elif isinstance(value, BaseException):
                todo.append(value)
        todo += [one.__cause__, one.__context__]


def without_login(url: str) -> str:
    """A URL without its login, but with its other secrets: for a digest."""
    parts = _parts(url)
    return url if parts is None else parts.bare


class _Parts(NamedTuple):
    """The parts of a URL that was parsed.

    Attributes:
        shown: The text that may be shown.
        bare: The URL without its login.
        hidden: The hidden parts: passwords and values of options.
    """

    shown: str
    bare: str
    hidden: tuple[str, ...] = ()


@lru_cache(maxsize=64)
def _parts(url: str) -> _Parts | None:
    match = re.match(_URL, url)
    if match is None:
        return None
    head, place, mark, query = match.groups()
    scheme = head.lower()
    slashes = "//" if place.startswith("//") else ""
    unread = _Parts(f"{head}:{slashes}{HIDDEN}", url, hidden=(url[len(head) + 1 + len(slashes) :],))
    if match.end() != len(url) or "@" in query:
        return unread
    read = _place(scheme, place)
    if read is None:
        return unread
    harmless = _declared[None] | SHIPPED.get(scheme, _declared.get(scheme, frozenset()))
    options = query.split("&") if mark else []
    told = [_option(each, harmless) for each in options]
    secrets = tuple(
        each.partition("=")[2] or each for each, shown in zip(options, told, strict=True) if each != shown
    )
    return _Parts(
        f"{head}:{read.shown}{mark}{'&'.join(told)}",
        f"{head}:{read.bare}{mark}{query}",
        hidden=(*read.hidden, *secrets),
    )


def _place(scheme: str, place: str) -> _Parts | None:
    """Parse the part between scheme and query; None if it cannot be parsed."""
    if scheme in _PATHS:
        return _Parts(place, place) if re.fullmatch(_PATHS[scheme], place) else None
    known = scheme in SHIPPED or scheme in _declared
    match = re.fullmatch(_SERVERS, place)
    if match is None:
        theirs = scheme in _declared and re.fullmatch(_FOLDER, place)
        return _Parts(place, place) if theirs or not place else None
    login, hosts, path = match["login"], match["hosts"], match["path"]
    if not all(_exists(host) for host in hosts.split(",")):
        return None
    hidden: tuple[str, ...] = ()
    shown = f"//{hosts}"
    if login is not None:
        user, _, password = login.partition(":")
        hidden = (password or user,)
        shown = (
            f"//{user}:{HIDDEN}@{hosts}" if password and re.fullmatch(_USER, user) else f"//{HIDDEN}@{hosts}"
        )
    if known or path in ("", "/"):
        return _Parts(shown + path, f"//{hosts}{path}", hidden=hidden)
    return _Parts(f"{shown}/{HIDDEN}", f"//{hosts}{path}", hidden=(*hidden, path[1:]))


def _exists(host: str) -> bool:
    """Whether a host and port can exist. If not, one of them may be a password in the wrong place."""
    address, bracket, port = (
        host.rpartition("]") if host.startswith("[") else ("", "", host.partition(":")[2])
    )
    if int(port.removeprefix(":") or "0") > _LAST_PORT:
        return False
    if not bracket:
        return True
    from ipaddress import AddressValueError, IPv6Address

    try:
        IPv6Address(address[1:])
    except AddressValueError:
        return False
    return True


def _option(option: str, harmless: frozenset[str]) -> str:
    key, equals, value = option.partition("=")
    if not option or (equals and not set(":;") & set(value) and (key in harmless or option in harmless)):
        return option
    return f"{key}={HIDDEN}" if equals and re.fullmatch(_KEY, key) else HIDDEN
