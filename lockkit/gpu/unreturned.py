"""Providers, cards and frameworks with an unreturned call: each keeps a thread, and gets no second call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from lockkit.lib.origin import Origin, this_origin

__all__ = ["ProviderCall", "give_up_late", "has_returned"]

P = TypeVar("P")

_mutex = threading.RLock()
_behind: dict[tuple[Origin, int], ProviderCall[Any]] = {}
"""The calls that were given up, by process and identity of the provider, which each of them keeps alive."""


class ProviderCall(Generic[P]):
    """One call of a provider, of a card, or of a framework.

    Args:
        provider: The provider, the card, or the module of the framework.
        call: The call.
    """

    def __init__(self, provider: P, call: Callable[[], object]) -> None:
        self.provider = provider
        self._call = call
        self.returned = False

    def __call__(self) -> object:
        """Ask the provider, and remember that it has returned."""
        try:
            return self._call()
        finally:
            with _mutex:
                self.returned = True
                key = _key(self.provider)
                if _behind.get(key) is self:
                    del _behind[key]


def has_returned(provider: object) -> bool:
    """Whether no call of a provider, of a card, or of a framework, hangs that was given up."""
    return _key(provider) not in _behind


def give_up_late(calls: Iterable[ProviderCall[Any]]) -> None:
    """Give up those of some calls that have not returned."""
    with _mutex:
        for call in calls:
            if not call.returned:
                _behind[_key(call.provider)] = call


def _key(provider: object) -> tuple[Origin, int]:
    # A forked child has none of the threads of its parent.
    return this_origin(), id(provider)
