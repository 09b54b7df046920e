"""The library python-etcd3: its import when it is first needed, and the reason where it cannot be imported.

Version 0.12.0 is its last, and its generated code imports only with protobuf before 4. This transport uses
the client object, for its channel, and the generated messages and stubs. The library's own calls lack needed
features (:data:`lockkit_etcd3.private.STUBS`), and its ``Lock`` never keeps its lease alive.

Forks of the library that bring the same module, ``etcd3``, serve as well: their changes, such as the choice
of endpoints and the errors, are not used here.
"""

from __future__ import annotations

import importlib
import warnings
from importlib import metadata
from typing import Any, NamedTuple

from lockkit.errors import ConfigError
from lockkit.lib.forks import IMPORTS, let_forks_pass
from lockkit_etcd3 import forks, private

__all__ = ["Library", "in_use", "load"]

_HINT = 'pip install "lockkit[python-etcd3]", or write etcd:// instead, which needs no library'
_loaded: Library | None = None


class Library(NamedTuple):
    """The parts of the library that are used. They have no types.

    Attributes:
        client: Makes the client of one endpoint.
        stubs: The generated messages and stubs.
        grpc: gRPC itself.
    """

    client: Any
    stubs: Any
    grpc: Any


def load() -> Library:
    """Import the library; the first time takes about a second.

    Raises:
        ImportError: The library is not installed.
        ConfigError: The library is installed and cannot be imported; the error says why.
    """
    global _loaded  # noqa: PLW0603
    if _loaded is None:
        with IMPORTS:
            if _loaded is None:
                forks.prepare()
                loaded = _load()
                forks.guard(loaded.grpc)
                _loaded = loaded
        let_forks_pass()
    return _loaded


def in_use() -> tuple[bool, str]:
    """For ``doctor``: whether the library can be imported, and its package and versions, or why it cannot."""
    try:
        load()
    except ImportError as error:
        return False, str(error)
    except ConfigError as error:
        return False, error.message
    with IMPORTS:  # the first look at metadata imports their parser
        return True, ", ".join([_owner(), _version("grpcio"), _version("protobuf")])


def _load() -> Library:
    try:
        with warnings.catch_warnings():
            # The library is from 2020, and a user of a lock can do nothing about that.
            warnings.simplefilter("ignore", DeprecationWarning)
            grpc = importlib.import_module("grpc")
            etcd3 = importlib.import_module("etcd3")
            stubs = importlib.import_module(private.STUBS)
            importlib.import_module(
                "google.protobuf.descriptor_pb2"
            )  # otherwise the first message imports it
    except ImportError as error:
        if error.name in {"etcd3", "grpc"}:
            raise ImportError("python-etcd3 is not installed", name="python-etcd3") from error
        raise ConfigError(f"{_owner()} cannot be imported: {error}", hint=_HINT) from error
    except Exception as error:
        raise ConfigError(f"{_owner()} cannot be imported: {_why(error)}", hint=_HINT) from error
    if name := private.missing(stubs):
        raise ConfigError(f"the module etcd3, of {_owner()}, has no {name}", hint=_HINT)
    return Library(etcd3.client, stubs, grpc)


def _why(error: Exception) -> str:
    protobuf = _version("protobuf")
    if isinstance(error, TypeError) and "Descriptors" in str(error):
        return f"it needs a protobuf before 4, and this environment has {protobuf}"
    return f"{str(error).partition(chr(10))[0]} ({protobuf})"


def _owner() -> str:
    """The distribution that brings the module etcd3, with its version. Slow: it reads what is installed."""
    owners = metadata.packages_distributions().get("etcd3", ["a package without metadata"])
    return " and ".join(
        "python-etcd3 " + _version(each).split()[-1] if each == "etcd3" else _version(each) for each in owners
    )


def _version(distribution: str) -> str:
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return distribution
