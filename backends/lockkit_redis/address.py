"""URLs of Redis: the server, the login, and the few options."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

from lockkit.store import certificates
from lockkit.store.urls import ESCAPE, Url

__all__ = ["Address", "parse"]

_COMMON = ("db", "min_replicas", *certificates.OPTIONS)
_OPTIONS = {
    "redis+sentinel": (*_COMMON, "tls", "sentinel_user", "sentinel_password"),
    "redis+cluster": ("min_replicas", "tls", *certificates.OPTIONS),
}
_PORTS = {"redis+sentinel": 26379}
_USAGE = "write redis://host:6379/0, rediss://host:6379/0 or unix:///run/redis.sock"
_USAGES = {
    "redis+sentinel": "write redis+sentinel://host1,host2,host3/mymaster/0",
    "redis+cluster": "write redis+cluster://host1:6379,host2:6379",
}
_LOGIN = "write redis://:password@host, or redis://user:password@host"


class Address(NamedTuple):
    """A parsed URL: where the server is, or who knows that, and how to log in.

    Attributes:
        shown: The URL without secrets.
        hosts: Host and port of the server; for Sentinel, of the sentinels.
        socket: A path, for a Unix socket.
        service: The sentinels' name for the primary; None without Sentinel.
        cluster: ``hosts`` are nodes of a Cluster.
        sentinel: User and password for the sentinels.
        tls: The certificates; None without TLS.
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
    tls: certificates.Files | None
    min_replicas: int

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def parse(url: str) -> Address:
    """Read a URL.

    ``redis://[user:password@]host[:port][/db][?option=...]``, ``rediss://`` (TLS), ``unix:///path``,
    ``redis+sentinel://[user:password@]host[:port],host[:port]/service[/db]`` and
    ``redis+cluster://[user:password@]host[:port],host[:port]``; the same with ``valkey`` for ``redis``.

    Raises:
        ConfigError: The URL is none of these, or has an unknown option; the error says what is allowed.
    """
    read = Url(url, "Redis", _USAGE)
    scheme = read.scheme.replace("valkey", "redis", 1)
    read.usage = _USAGES.get(scheme, _USAGE)
    if scheme != "unix" and not url[len(read.scheme) :].startswith("://"):
        raise read.wrong("a host is written after two slashes")
    options = read.options(_OPTIONS.get(scheme, _COMMON))
    secure = scheme == "rediss" or read.yes(options, "tls")
    if "@" in read.path or (":" in read.path and not read.places and scheme != "unix"):
        raise read.wrong("a login stands where the database or the path would be", f"{_LOGIN}; {ESCAPE}")
    user, password = read.login(_LOGIN, named=False)
    path = unquote(read.path)
    socket = service = None
    if scheme == "unix":
        if read.places or not path.startswith("/"):
            raise read.wrong("a socket is named by its absolute path", "unix:///run/redis.sock?db=0")
        path, socket = "", path
    elif scheme == "redis+sentinel":
        service, _, path = path.strip("/").partition("/")
        if not service:
            raise read.wrong("the URL names no service")
    database = path.strip("/")
    if database and scheme == "redis+cluster":
        raise read.wrong("a Cluster has no databases")
    if "," in read.places and scheme not in _OPTIONS:
        raise read.wrong(
            "only one host may be named", "several are for redis+sentinel:// and redis+cluster://"
        )
    if database and "db" in options:
        raise read.wrong("the database is named twice", "write /0 or ?db=0, not both")
    files = certificates.read_files(
        read, options, None if secure else "write rediss://, or tls=yes with Sentinel"
    )
    return Address(
        shown=read.shown,
        hosts=read.hosts(_PORTS.get(scheme, 6379)),
        socket=socket,
        service=service,
        cluster=scheme == "redis+cluster",
        db=_number(read, database or options.get("db", "0"), "the database"),
        user=user,
        password=password,
        sentinel=(options.get("sentinel_user"), options.get("sentinel_password")),
        tls=files if secure else None,
        min_replicas=_number(read, options.get("min_replicas", "0"), "min_replicas"),
    )


def _number(url: Url, text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 6:
        raise url.wrong(f"{what} must be a whole number, not {url.veiled(text)!r}")
    return int(text)
