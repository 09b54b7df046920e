"""The libraries that people use on one host, and which of all libraries are installed.

The libraries are optional. Each is used as its own documentation shows it first, with its defaults.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import etcd_contenders, redis_contenders, zookeeper_contenders
from lockkit.testing.bench import floors
from lockkit.testing.bench.contender import Contender

__all__ = ["HERE", "INSTALL", "PEERS", "opened", "peers", "unusable"]

HERE = __name__
PEERS = {"filelock": "filelock", "portalocker": "portalocker", "fasteners": "fasteners"}
"""pip's name of each library, and the module that it brings."""
_MAKERS = {
    "redis": redis_contenders.MAKERS,
    "etcd": etcd_contenders.MAKERS,
    "zookeeper": zookeeper_contenders.MAKERS,
}
"""By the scheme of the URL."""


INSTALL = {"etcd3": "etcd3 'protobuf<4'"}
"""The arguments for pip, where a library's name is not enough."""


def peers(libraries: Mapping[str, str] = PEERS) -> tuple[list[str], list[str]]:
    """The libraries that are installed and can be used, and those that are missing."""
    found = [
        name for name, module in libraries.items() if find_spec(module) is not None and unusable(name) is None
    ]
    return found, [name for name in libraries if name not in found]


def unusable(name: str) -> str | None:
    """Why a library that is installed cannot be imported; None where it can, or is not installed."""
    if name != "etcd3" or find_spec(name) is None:
        return None
    try:
        with warnings.catch_warnings():  # it is from 2020
            warnings.simplefilter("ignore", DeprecationWarning)
            import_module(name)
    except Exception as error:
        if isinstance(error, TypeError) and "Descriptors" in str(error):
            return f"it cannot be imported: it wants protobuf before 4, and here is {metadata.version('protobuf')}"
        return f"it cannot be imported: {str(error).partition(chr(10))[0]}"
    return None


@contextmanager
def opened(names: list[str], folder: Path, url: str) -> Iterator[dict[str, Contender]]:
    """The contenders of these names, each with its own file in ``folder`` or keys of its own; every other name is lockkit on ``url``."""
    makers = _MAKERS.get(url.partition(":")[0], {})
    others = [name for name in names if name not in PEERS and name not in makers]
    with floors.opened(others, folder, url) as ours, ExitStack() as stack:
        made = dict(ours)
        for name in names:
            if name in PEERS:
                made[name] = _peer(name, folder)
            elif name in makers:
                made[name] = makers[name](stack, url)
        yield made


def _peer(name: str, folder: Path) -> Contender:
    module: Any = import_module(name)
    path = str(folder / name)
    lock: Any
    if name == "filelock":
        lock = module.FileLock(path)
    elif name == "portalocker":
        lock = module.Lock(path, timeout=60)
    else:
        lock = module.InterProcessLock(path)
    return Contender(name, lock.acquire, lambda _: lock.release())
