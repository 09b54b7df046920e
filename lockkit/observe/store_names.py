"""The names by which journals know stores: one for each file, however its URL is written."""

from __future__ import annotations

import os

__all__ = ["one_name"]

_FILE = "sqlite:"


def one_name(store: str, *, here: bool = False) -> str:
    """The URL of a store; the path of a file without ``//``, ``.`` and ``..``.

    Args:
        store: The URL as it was given, secrets redacted.
        here: Whether the file is one of this host, so that links in its path can be followed.
    """
    path = store.removeprefix(_FILE)
    if path == store or not path.startswith("/"):
        return store
    path = "/" + path.lstrip("/")
    return _FILE + (os.path.realpath(path) if here else os.path.normpath(path))
