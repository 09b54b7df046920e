"""L3: a client that stands still in the middle of a call."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from lockkit.facts import Owner
from lockkit.store.spi import Backend, Claim, Granted, Refused, Unknown
from lockkit.testing.children import Child, Parent
from lockkit.testing.scenarios.handoffs import HAND_OFF
from lockkit.testing.shapes import MUTEX
from lockkit.testing.stage import Stage, scenario
from lockkit.values.names import new_token

__all__: list[str] = []

_BUDGET = 10.0
_PLACES = 48
"""The most places in each call at which the client is stopped."""
_CALLS = ("acquire", "renew", "release", "abandon")


class _Stop:
    """A context manager that stops this process at the n-th line of a store's own code; 0 for never.

    Attributes:
        places: The number of each line of code when it was first reached, and when it was last reached.
    """

    def __init__(self, parent: Parent, backend: Backend, at: int) -> None:
        self._parent = parent
        self._package = type(backend).__module__.partition(".")[0]
        self._at = at
        self._before = sys.gettrace()
        self._lines = 0
        self.places: dict[tuple[str, int], tuple[int, int]] = {}

    def __enter__(self) -> _Stop:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:  # noqa: ARG002
        if str(frame.f_globals.get("__name__")).partition(".")[0] != self._package:
            return None
        if event == "line":
            self._lines += 1
            place = frame.f_code.co_filename, frame.f_lineno
            self.places[place] = self.places.get(place, (self._lines,))[0], self._lines
            if self._lines == self._at:
                self._parent.tell(":".join(map(str, place)))
                os.kill(os.getpid(), signal.SIGSTOP)
        return self._trace


def _calls(stage: Stage, parent: Parent) -> None:
    """Make the calls that the parent names, stop where it says, and send the lines where a call can stop."""
    backend = stage.harness.open()
    while True:
        call, at = parent.hear()
        try:
            places = _call(stage, parent, backend, call, at)
        except (Refused, Unknown):  # it was stopped for longer than its session lasts
            backend = stage.harness.open()
            places = _call(stage, parent, backend, call, 0)
        parent.tell(places)


def _call(stage: Stage, parent: Parent, backend: Backend, call: str, at: int) -> list[int]:
    """Make a call, and stop at a line of it, or nowhere (0). The lines at which it can be stopped."""
    terms = stage.shape.holders[0].terms(stage.name, Owner(host="kit"), ttl=stage.harness.ttl)
    claim = Claim(new_token(), terms)
    answer = backend.acquire(claim, True, _BUDGET) if call != "acquire" else None
    fence = answer.fence if isinstance(answer, Granted) else None
    with _Stop(parent, backend, at) as stop:
        if call == "renew":
            backend.renew([(claim, fence)], _BUDGET)
        elif call == "acquire":
            backend.acquire(claim, True, _BUDGET)
        else:
            getattr(backend, call)(claim, _BUDGET)
    backend.abandon(claim, _BUDGET)
    return sorted({number for numbers in stop.places.values() for number in numbers})


def _answered(stage: Stage, backend: Backend, names: Sequence[str], where: str) -> None:
    """Check that another client gets its answers at once."""
    with stage.within(HAND_OFF, f"a try of another client, while one is stopped at {where},"):
        for name in names:
            terms = stage.shape.holders[0].terms(name, Owner(host="kit"), ttl=stage.harness.ttl)
            claim = Claim(new_token(), terms, wait=False)
            try:
                if isinstance(backend.acquire(claim, True, _BUDGET), Granted):
                    backend.release(claim, _BUDGET)
            except (Refused, Unknown) as trouble:
                raise AssertionError(
                    f"L3: a client that is stopped at {where} holds up others: {trouble}"
                ) from None


def _stopped(child: Child) -> None:
    """Wait until a child has stopped."""
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), "the child has ended"


@scenario("L3-stopped-in-a-call", (MUTEX,))
def stopped_in_a_call(stage: Stage) -> None:
    """A client stopped (SIGSTOP) anywhere in its code of a call delays no other client, on any name."""
    child = stage.child(lambda parent: _calls(stage, parent))
    backend = stage.backend()
    for call in _CALLS:
        child.tell([call, 0])
        places = child.hear()
        assert places, f"{call} has no code in the package of the store"
        for at in places[:: -(-len(places) // _PLACES)]:
            child.tell([call, at])
            where = child.hear()
            if not isinstance(where, str):  # this time the call did not come so far
                continue
            try:
                _stopped(child)
                _answered(stage, backend, (stage.name, "kit/another"), f"{where} in {call}")
            finally:
                os.kill(child.pid, signal.SIGCONT)
            child.hear()
