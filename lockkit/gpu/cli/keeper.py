"""A keeper: a command that holds cards for programs that it did not start, until an end that it waits for."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal, TypeVar

from lockkit.cli import exits, output
from lockkit.cli.signals import Terminated
from lockkit.facts import LOSSES
from lockkit.gpu.words import short_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockkit.cli.background import Front
    from lockkit.cli.base import Session
    from lockkit.cli.documents import GpuAdopt, GpuReserve
    from lockkit.facts import Reason, ReleaseRequest
    from lockkit.gpu.devices import Device
    from lockkit.sync.client import Client
    from lockkit.sync.leases import Leases

__all__ = ["Event", "Keeper"]

D = TypeVar("D", "GpuAdopt", "GpuReserve")

Event = Literal["held", "ended", "stopped", "lost"]


class Keeper(ABC):
    """The process that holds the cards, and says what becomes of them."""

    def __init__(
        self, session: Session, client: Client, pool: str, leases: Leases, devices: Sequence[Device]
    ) -> None:
        self._session = session
        self._client = client
        self._pool = pool
        self._leases = leases
        self._devices = devices

    def keep(self, front: Front | None) -> int:
        """Keep the claims until the end. Returns the exit code.

        Args:
            front: The process in front of the user, which may end once the cards are held; None: none.

        Raises:
            CommandFailed: A claim was lost.
            KeyboardInterrupt, Terminated: A signal ended the keeper.
        """
        reason: Reason = "error"
        try:
            for lease in self._leases:
                lease.on_release_requested(self._hear)
            self._say("held")
            if front is not None:
                front.leave()
            while not (over := self._is_over()) and not self._leases.lost_because:
                self._wait()
            because = "" if over else self._leases.lost_because
            lost = LOSSES.get(because, because)
            reason = "lost" if lost else "normal"
        except (KeyboardInterrupt, Terminated):
            reason = "sigterm"
            raise
        finally:
            self._release(reason)
            if reason == "sigterm":
                self._say("stopped")
        return self._ended(lost)

    @abstractmethod
    def _is_over(self) -> bool:
        """Whether the end has come."""

    @abstractmethod
    def _wait(self) -> None:
        """Wait for the end, or for a loss."""

    @abstractmethod
    def _sentence(self, event: Event) -> str:
        """The sentence for people about an event."""

    @abstractmethod
    def _document(self, event: Event) -> GpuAdopt | GpuReserve:
        """The document about an event."""

    @abstractmethod
    def _heard(self, request: ReleaseRequest) -> str:
        """The answer to a request to release, in words."""

    @abstractmethod
    def _hint(self) -> str:
        """The advice after a loss."""

    def _release(self, reason: Reason) -> None:
        self._leases.release(reason)

    def _ended(self, lost: str) -> int:
        """Say how it ended. Returns the exit code.

        Raises:
            CommandFailed: A claim was lost.
        """
        reports = [report for lease in self._leases if (report := lease.report) is not None]
        if not lost and any(report.outcome == "LOST" for report in reports):
            lost = f"at its release {LOSSES['absent']}"
        if lost:
            if self._session.json:
                self._say("lost")
            raise exits.CommandFailed(
                f"{self._cards} no longer held, because the lock was lost: {lost}; {self._sentence('lost')}",
                code=exits.LOST,
                kind="lost",
                name=self._pool,
                hint=self._hint(),
            )
        self._say("ended")
        for report in reports:
            if report.outcome == "ABANDONED":
                self._tell(
                    f"the release of {report.name!r} was not confirmed; it lapses by "
                    "itself (lockkit failures list)"
                )
        return exits.OK

    @property
    def _cards(self) -> str:
        """The cards, with the verb: ``GPU 0 is``."""
        verb = "is" if len(self._devices) == 1 else "are"
        return f"{', '.join(map(short_name, self._devices))} {verb}"

    def _of(self, kind: type[D], event: Event, **more: object) -> D:
        """The document of an event, made of what all keepers have, and of more."""
        from lockkit.cli.released import run_leases
        from lockkit.gpu.host_pools import host_of
        from lockkit.views.making import made_of

        return made_of(
            kind,
            store=self._client,
            host=host_of(self._pool),
            event=event,
            keeper=os.getpid(),
            gpus=self._devices,
            leases=run_leases(self._leases),
            **more,
        )

    def _hear(self, request: ReleaseRequest) -> None:
        self._tell(self._heard(request))

    def _say(self, event: Event) -> None:
        """Write an event: a sentence, or a document of one row."""
        if self._session.json:
            output.write_json(self._document(event))
        else:
            output.say(self._sentence(event))
        sys.stdout.flush()

    def _tell(self, sentence: str) -> None:
        output.notice(sentence, name=self._pool, as_json=self._session.json)
