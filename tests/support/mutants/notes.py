"""Mistakes about the notes of claims: layers around any backend, and a patch of the heartbeat."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lockkit.lib.noted import RESERVED
from lockkit.protocol.beating import Beats
from lockkit.store.spi import Answer, Beat, Busy, Claim, Queued, Renewal
from support.mutants.layers import Layer
from support.mutants.mutant import patched

__all__ = ["AnnotateForgets", "HeartbeatForgetsNotes", "HolderWithoutNote", "tells_nothing"]


class HeartbeatForgetsNotes(Layer):
    """A renewal does not bring what others have written into the note."""

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        return [answer._replace(requests=None) for answer in self.inner.renew(beats, budget)]


class AnnotateForgets(Layer):
    """A patch replaces what it should be merged with."""

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
        return self.inner.annotate(name, claim_id, {RESERVED: None}, budget) and self.inner.annotate(
            name, claim_id, patch, budget
        )


class HolderWithoutNote(Layer):
    """The answer to a claim that must wait shows the holder without its note."""

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        answer = self.inner.acquire(claim, create, budget)
        if isinstance(answer, Busy | Queued) and answer.holder is not None:
            return answer._replace(holder=answer.holder._replace(note={}))
        return answer


@contextmanager
def tells_nothing() -> Iterator[None]:
    """The heartbeat does not write what holders tell."""

    def telling(self: Any, renewed: Any) -> Generator[Any, Any, None]:  # noqa: ARG001
        yield from ()

    with patched(Beats, _telling=telling):
        yield
