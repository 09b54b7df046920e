"""The library python-etcd3: brought in when it is needed, and why it cannot be where it can't.

Version 0.12.0 is its last. Its generated code imports only with protobuf before 4. Of the library this transport uses
the client object, for the channel that it makes, and the generated messages and stubs: the client's own calls know no
ranges in a transaction, no headers, no deadline of a single call and no reason of a cancelled watch. Its ``Lock`` is not
used: it never keeps its lease alive.

Forks of it that own the same module, ``etcd3``, are served as well: what they change, how endpoints are chosen and
errors are told, is not used here.
"""

from __future__ import annotations

import importlib
import threading
import warnings
from importlib import metadata
from typing import Any, NamedTuple

from lockkit.errors import ConfigError
from lockkit_etcd import grpc_forks

__all__ = ["Package", "in_use", "load"]

_HINT = 'pip install "lockkit[python-etcd3]", or write etcd:// instead, which needs no library'
_NEEDED = ("KVStub", "LeaseStub", "WatchStub", "MaintenanceStub", "AuthStub", "TxnRequest", "Compare")
_mutex = threading.Lock()
_loaded: Package | None = None


class Package(NamedTuple):
    """What is used of it. Nothing of it has types.

    Attributes:
        client: Makes the client of one endpoint.
        rpc: The generated messages and stubs.
        grpc: gRPC itself.
    """

    client: Any
    rpc: Any
    grpc: Any


def load() -> Package:
    """Import it; the first time takes about a second.

    Raises:
        ImportError: It is not installed.
        ConfigError: It is, and cannot be imported; the error says why.
    """
    global _loaded  # noqa: PLW0603
    if _loaded is not None:  # a fork may have left the mutex locked
        return _loaded
    with _mutex:
        if _loaded is None:
            grpc_forks.prepare()
            loaded = _load()
            grpc_forks.guard(loaded.grpc)
            _loaded = loaded
        return _loaded


def in_use() -> tuple[bool, str]:
    """For ``doctor``: whether it can be imported, and which package and versions that are, or why it cannot."""
    try:
        load()
    except ImportError as error:
        return False, str(error)
    except ConfigError as error:
        return False, error.message
    return True, ", ".join([_owner(), _version("grpcio"), _version("protobuf")])


def _load() -> Package:
    try:
        with warnings.catch_warnings():
            # It is from 2020, and nobody who uses a lock can do anything about that.
            warnings.simplefilter("ignore", DeprecationWarning)
            grpc = importlib.import_module("grpc")
            etcd3 = importlib.import_module("etcd3")
            rpc = importlib.import_module("etcd3.etcdrpc")
    except ImportError as error:
        if error.name in {"etcd3", "grpc"}:
            raise ImportError("python-etcd3 is not installed", name="python-etcd3") from error
        raise ConfigError(f"{_owner()} cannot be imported: {error}", hint=_HINT) from error
    except Exception as error:
        raise ConfigError(f"{_owner()} cannot be imported: {_why(error)}", hint=_HINT) from error
    if missing := [name for name in _NEEDED if not hasattr(rpc, name)]:
        raise ConfigError(f"the module etcd3, of {_owner()}, has no {missing[0]}", hint=_HINT)
    return Package(etcd3.client, rpc, grpc)


def _why(error: Exception) -> str:
    protobuf = _version("protobuf")
    if isinstance(error, TypeError) and "Descriptors" in str(error):
        return f"it wants protobuf before 4, and here is {protobuf}"
    return f"{str(error).partition(chr(10))[0]} ({protobuf})"


def _owner() -> str:
    """The distribution that the module etcd3 comes from, with its version. Slow: it reads what is installed."""
    owners = metadata.packages_distributions().get("etcd3", ["a package without metadata"])
    return " and ".join(
        "python-etcd3 " + _version(each).split()[-1] if each == "etcd3" else _version(each) for each in owners
    )


def _version(distribution: str) -> str:
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return distribution
