"""Requests under way between a client and the store, and what may happen to them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lockkit.errors import BackendUnavailable
from lockkit.protocol import effects
from lockkit.protocol.effects import Acquire, Annotate, Inspect, ListNames, RemoveMany, Removing, Renew
from lockkit.store.spi import Busy, Claim, End, Granted, Lapsed, Queued, Refused, Renewal, Unknown

__all__ = ["Caller", "Job", "Reply", "Request", "answer_text", "lost", "refused"]

Job = Generator[str, None, Any]
"""A request under execution: runs one atomic statement each time it is advanced, returns the answer."""


class Caller(Protocol):
    """An actor that waits for an answer."""

    def answered(self, result: Any) -> None: ...

    def failed(self, error: BaseException) -> None: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply: an answer, or an error that is one."""

    answer: Any = None
    error: Exception | None = None

    def tell(self, caller: Caller) -> None:
        """Give it to whoever waits."""
        if self.error is not None:
            caller.failed(self.error)
        else:
            caller.answered(self.answer)

    def __str__(self) -> str:
        return answer_text(self.answer) if self.error is None else repr(self.error)


@dataclass(slots=True, eq=False)
class Request:
    """One request that was sent.

    Attributes:
        what: What is asked.
        serial: Counts requests; the order of sending.
        acquisition: The acquisition of the client it is for (a mutant may have several under one token).
        replay: A create of this token was sent before.
        sent: When, on the virtual clock.
        caller: The actor that waits; None once nobody does any more, which makes this a late copy.
        job: Being executed; None before and afterwards.
        reply: The answer on its way back.
    """

    serial: int
    client: str
    actor: str
    what: effects.Request
    sent: float
    acquisition: Mapping[str, int] = field(default_factory=dict)
    replay: bool = False
    caller: Caller | None = None
    job: Job | None = None
    reply: Reply | None = None
    outcome: str = ""

    @property
    def claims(self) -> list[Claim]:
        """The claims it names."""
        match self.what:
            case Renew(beats):
                return [claim for claim, _ in beats]
            case RemoveMany(removals):
                return [each.claim for each in removals]
            case Inspect() | ListNames() | Annotate():
                return []
            case asked:
                return [asked.claim]

    @property
    def fences(self) -> dict[str, int | None]:
        """For a renewal: the fence that each token is renewed with."""
        if isinstance(self.what, Renew):
            return {claim.token: fence for claim, fence in self.what.beats}
        return {}

    @property
    def acquires(self) -> bool:
        """Whether it may make a claim HELD."""
        return isinstance(self.what, Acquire)

    @property
    def creates(self) -> bool:
        """Whether it may append a claim."""
        return isinstance(self.what, Acquire) and self.what.create

    @property
    def renews(self) -> bool:
        """Whether it is a heartbeat."""
        return isinstance(self.what, Renew)

    @property
    def removes(self) -> bool:
        """Whether it takes a claim back."""
        return isinstance(self.what, Removing | RemoveMany)

    def how(self, token: str) -> End | None:
        """How it says that a claim ends; None if it takes none back."""
        if isinstance(self.what, RemoveMany):
            return next(each.how for each in self.what.removals if each.claim.token == token)
        return self.what.how if isinstance(self.what, Removing) else None

    def __str__(self) -> str:
        what = ",".join(claim.token for claim in self.claims)
        more = ""
        if self.acquires:
            more = " create" if self.creates else " ask"
        elif self.renews:
            what = ",".join(
                f"{token}{'' if fence is None else f'#{fence}'}" for token, fence in self.fences.items()
            )
        elif self.removes:
            more = "".join(
                f" {how}" for how in {self.how(claim.token) for claim in self.claims} - {"released"}
            )
        copy = "" if self.caller else " (late copy)"
        return f"r{self.serial} {type(self.what).__name__.lower()}({what}{more}){copy}"


def lost(what: str) -> Unknown:
    """No answer came."""
    return Unknown(BackendUnavailable(f"no answer: {what}"))


def refused() -> Refused:
    """The store said that it did not do it."""
    return Refused(BackendUnavailable("the store refused: try again"))


def answer_text(answer: object) -> str:
    """An answer as the story tells it."""
    match answer:
        case Granted(fence, basis):
            return f"GRANTED fence {fence}, basis {basis:.2f}"
        case Queued():
            return f"QUEUED at {answer.position} behind {list(answer.blockers)}"
        case Renewal():
            return answer.state + (f" ({answer.why})" if answer.why else "")
        case Lapsed(why):
            return f"LAPSED ({why})"
        case Busy():
            return "BUSY"
        case list():
            return "[" + ", ".join(answer_text(each) for each in answer) + "]"
    return str(answer)
