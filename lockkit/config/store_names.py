"""The names of stores: one for each store, however its URL is written.

A name is the URL without secrets, login, settings and defaults. The schemes of Redis and Valkey, with TLS or
without, are one, as are those of etcd and those of ZooKeeper: one server answers all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote

from lockkit.config.settings import IN_QUERY
from lockkit.config.suggesting import place_of
from lockkit.lib.printable import printable
from lockkit.values.names import digest
from lockkit.values.redaction import HIDDEN, redact, without_login

if TYPE_CHECKING:
    from lockkit.config.config import Config

__all__ = ["is_local", "name_of", "one_name", "store_of"]

_SERVERS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys"), ("redis", "6379")),
    **dict.fromkeys(("redis+cluster", "valkey+cluster"), ("redis+cluster", "6379")),
    **dict.fromkeys(("redis+sentinel", "valkey+sentinel"), ("redis+sentinel", "26379")),
    **dict.fromkeys(("etcd", "etcds", "etcd+grpc", "etcds+grpc"), ("etcd", "2379")),
    **dict.fromkeys(("zookeeper", "zookeepers", "zk"), ("zookeeper", "2181")),
}
"""The scheme in names, and the default port, by the scheme of a URL."""
_URL = r"(?s)([A-Za-z][A-Za-z0-9+.-]*):(?://(?:[^/?]*@)?([^/?]*))?([^?]*)\??(.*)"
_PORT = r"(?s)(.*?)(?::0*([0-9]+))?"
_LOOPBACK = ("", "localhost", "127.0.0.1", "[::1]")
_LOCAL = (
    r"(?i)unix:|[a-z0-9+.-]+://(?:(?:localhost|127\.[0-9.]+|\[::1\])(?::[0-9]+)?(?:,|(?=[/?]|$)))+(?:[/?]|$)"
)


def store_of(config: Config) -> str:
    """The name of the store of a configuration. Links in the path of a file are followed."""
    return name_of(place_of(config), here=True)


def name_of(url: str, *, here: bool = False) -> str:
    """The name of the store with this URL, which may contain secrets. Hidden parts count as a digest.

    The login does not count, so a new password still means the same store.
    """
    name = one_name(redact(url), here=here)
    return f"{name} {digest(one_name(without_login(url)))}" if HIDDEN in name else name


@lru_cache(maxsize=256)
def one_name(url: str, *, here: bool = False) -> str:
    """The name of the store with this URL; the name itself if it is one already.

    ``here``: the file or socket is one of this host, so links in its path can be followed.
    """
    match = re.fullmatch(_URL, url)
    if match is None:
        return printable(url)
    scheme, hosts, path, query = match[1].lower(), match[2], match[3], match[4]
    options = dict(parse_qsl(query, keep_blank_values=True))
    if scheme in ("sqlite", "unix") and path.startswith("/"):
        path = "/" + unquote(path).lstrip("/")
        path = quote(os.path.realpath(path) if here else os.path.normpath(path))
        db = options.get("db", "").lstrip("0") if scheme == "unix" else ""
        return f"{scheme}:{path}{db and '?db='}{db}"
    if hosts is None or scheme not in _SERVERS:
        told = "&".join(sorted(one for one in query.split("&") if one.partition("=")[0] not in IN_QUERY))
        place = "" if hosts is None else f"//{hosts}"
        return printable(f"{scheme}:{place}{path.rstrip('/')}{told and '?'}{told}")
    kind, port = _SERVERS[scheme]
    parts = [unquote(part) for part in path.split("/") if part]
    if kind.startswith("redis"):
        service = 1 if kind == "redis+sentinel" else 0
        db = (parts[service:] or [options.get("db", "")])[0].lstrip("0")
        parts = [*parts[:service], *([db] if db else [])]
    places = sorted({_place(host, port) for host in hosts.split(",")})
    return "/".join((f"{kind}://{','.join(places)}", *(quote(part, safe="") for part in parts)))


def _place(host: str, usual: str) -> str:
    """A host and its port, unless it is the usual one."""
    match = re.fullmatch(_PORT, host.lower())
    name, port = match.groups() if match else (host, None)
    name = "localhost" if name in _LOOPBACK else name
    return name if port in (None, usual) else f"{name}:{port}"


def is_local(name: str) -> bool:
    """Whether each host has a store of its own by this name: at the loopback address, or at a socket."""
    return re.match(_LOCAL, name) is not None
