"""The holders in a store that is to be removed, in all its namespaces, and the drain against new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lockkit.shared import draining

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo
    from lockkit.sync.client import Client

__all__ = ["drained", "holders"]

Connect = Callable[[str | None], "Client"]
"""Opens the store for a namespace; None for that of the configuration."""


def exists(url: str) -> bool:
    """Whether the file of an embedded store is there. To open a store that does not exist would create it."""
    return Path(unquote(url.partition(":")[2].partition("?")[0])).is_file()


def holders(url: str, connect: Connect) -> list[ClaimInfo]:
    """The claims of a store that still hold or block, of all namespaces; none if the store was never used."""
    if not exists(url):
        return []
    found = []
    for client in _each(connect):
        found += draining.holders(client.driver(), deep=True)
    return found


@contextmanager
def drained(url: str, connect: Connect, *, keep: Callable[[], bool]) -> Iterator[None]:
    """Keep the namespaces of a store drained while the ``with`` statement runs.

    Args:
        url: The store.
        connect: Opens it.
        keep: Asked at the end whether the store is to stay drained, because it has been removed.
    """
    marked: list[str] = []
    try:
        if exists(url):
            for client in _each(connect):
                client.drain("lockkit host remove")
                marked.append(client.namespace)
        yield
    finally:
        if not keep():
            for namespace in marked:
                with connect(namespace) as client:
                    client.undrain()


def _each(connect: Connect) -> Iterator[Client]:
    """A client for each namespace of the store."""
    with connect(None) as first:
        names = {first.namespace, *first.namespaces()}
    for name in sorted(names):
        with connect(name) as client:
            yield client
