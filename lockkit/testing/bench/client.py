"""The clients of the benchmark. They use a namespace of their own, so that a store in use may be measured too."""

from __future__ import annotations

import os

import lockkit

__all__ = ["NAMESPACE", "connected"]

NAMESPACE = "lockkit-bench"


def connected(url: str, folder: str | os.PathLike[str]) -> lockkit.Client:
    """A client of the store at ``url`` that keeps its state in ``folder``."""
    return lockkit.connect(url, namespace=NAMESPACE, state_dir=os.fspath(folder))
