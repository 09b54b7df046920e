"""URLs of etcd: the members, the login, the options, and the certificates that the options name."""

from __future__ import annotations

from typing import NamedTuple

from lockkit.store import certificates
from lockkit.store.urls import Url

__all__ = ["Address", "parse"]

_USAGE = "write etcd://host1:2379,host2:2379,host3:2379, or etcds:// for TLS"
_PORT = 2379


class Address(NamedTuple):
    """The members of a cluster, and how to talk to them.

    Attributes:
        shown: The URL without secrets.
        hosts: Host and port of each member that was named.
        tls: Speak TLS.
        files: The certificates.
    """

    shown: str
    hosts: tuple[tuple[str, int], ...]
    user: str | None
    password: str | None
    tls: bool
    files: certificates.Files

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"


def parse(url: str) -> Address:
    """Read a URL.

    ``etcd://[user:password@]host[:port][,host[:port]...][?option=...]``; ``etcds://`` for TLS;
    ``etcd+grpc://`` and ``etcds+grpc://`` for the same by way of python-etcd3.

    Raises:
        ConfigError: The URL is none of these, or has an unknown option; the error says what is allowed.
    """
    read = Url(url, "etcd", _USAGE)
    tls = read.scheme.startswith("etcds")
    options = read.options(certificates.OPTIONS)
    files = certificates.read_files(read, options, None if tls else "write etcds://")
    if (files.cert_file is None) != (files.key_file is None):
        raise read.wrong("cert_file and key_file must be given together")
    user, password = read.login("write etcd://user:password@host", named=True)
    if read.path.strip("/"):
        raise read.wrong("etcd has no databases", f"use a namespace instead; {_USAGE}")
    return Address(
        shown=read.shown,
        hosts=read.hosts(_PORT),
        user=user,
        password=password,
        tls=tls,
        files=files,
    )
