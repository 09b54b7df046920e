"""The requests of others to release a hold, as the client of the hold has learned of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lockkit.facts import ReleaseRequest
from lockkit.lib.bell import Flag
from lockkit.lib.noted import requests_in

__all__ = ["Asked", "each_once"]


class Asked:
    """The requests to release one hold.

    Attributes:
        known: The requests, each by its key in the note of the claim. The mapping is replaced, never changed.
        event: Set once there is a request.
        alarms: Functions to call, in the thread that notices the first request. They neither block nor raise.
    """

    __slots__ = ("alarms", "event", "known")

    def __init__(self) -> None:
        self.known: Mapping[str, ReleaseRequest] = {}
        self.event = Flag()
        self.alarms: tuple[Callable[[], object], ...] = ()

    def heard(self, note: Mapping[str, object]) -> list[ReleaseRequest]:
        """Take the new requests from the claim's note, the oldest first. Only for the heartbeat thread."""
        known = self.known
        new = {key: request for key, request in requests_in(note).items() if known.get(key) != request}
        if not new:
            return []
        self.known = {**known, **new}
        self.event.set()
        for alarm in self.alarms:
            alarm()
        return list(new.values())


def each_once(callback: Callable[[ReleaseRequest], None]) -> Callable[[ReleaseRequest], None]:
    """A callback that two threads may call for the same request; only the first of the calls runs it."""
    begun: dict[ReleaseRequest, object] = {}

    def call(request: ReleaseRequest) -> None:
        mine = object()
        if begun.setdefault(request, mine) is mine:
            callback(request)

    return call
