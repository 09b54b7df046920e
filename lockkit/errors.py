"""Every exception lockkit raises.

All of them pickle, carry the lock's name and (if known) its holder, and end their message with what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from lockkit.lib.printable import printable

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo, Drain, ReleaseReport

__all__ = [
    "AcquireCancelled",
    "AcquireError",
    "AcquireTimeout",
    "BackendError",
    "BackendUnavailable",
    "CapabilityError",
    "CapacityMismatch",
    "ConfigError",
    "DeadlockDetected",
    "DevicesNotReady",
    "DevicesUnavailable",
    "Drained",
    "IncompatibleLayout",
    "LeaseLost",
    "LockkitError",
    "NotHeld",
    "OutcomeUnknown",
    "OwnershipError",
    "PermissionDenied",
    "PluginError",
    "ReleaseFailed",
    "StaleFence",
]


class LockkitError(Exception):
    """Base of all lockkit errors.

    Args:
        message: What happened, in one sentence.
        told: The rest, as a document of JSON: of an exception that a queue of tasks has carried.
        name: The lock it happened to, if there is one.
        holder: The claim that holds (or blocks) that lock, where known.
        hint: What to do next.
    """

    def __init__(
        self,
        message: str,
        told: object = None,
        *,
        name: str | None = None,
        holder: ClaimInfo | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.name = name
        self.holder = holder
        self.hint = hint
        if isinstance(told, dict):
            from lockkit.carried import claim_in, text_in  # late: few programs read what a queue has carried

            self.name, self.hint = text_in(told, "name"), text_in(told, "hint")
            self.holder = claim_in(self.name or "", told.get("holder"))

    def __str__(self) -> str:
        return printable(f"{self.message} ({self.hint})" if self.hint else self.message, lines=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"

    def carriable(self) -> Self:
        """Give the exception JSON arguments from which its class makes an equal one, for queues of tasks."""
        self.args = (self.message, self._told())
        return self

    def _told(self) -> dict[str, object]:
        from lockkit.carried import claim_document

        holder = None if self.holder is None else claim_document(self.holder)
        return {"name": self.name, "hint": self.hint} | ({} if holder is None else {"holder": holder})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(kind: type[LockkitError], args: tuple[Any, ...], state: dict[str, Any]) -> LockkitError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class AcquireError(LockkitError):
    """The lock was not acquired; nothing of the attempt is left behind."""


class AcquireTimeout(AcquireError, TimeoutError):
    """The total timeout passed before the lock was granted."""


class AcquireCancelled(AcquireError):
    """Something other than a timeout ended the wait, for instance because the client was closed."""


class DeadlockDetected(AcquireError):
    """This thread or task would wait for itself or (``detect_deadlock``) is the youngest in a deadlock."""


class CapacityMismatch(AcquireError):
    """Another client uses this name with another capacity, or a resize made it smaller than this claim."""


class Drained(AcquireError):
    """The namespace is being drained: it gives no new locks, and those who hold one may finish.

    Attributes:
        drain: The mark: who drains the namespace, since when, and why.
    """

    def __init__(
        self,
        message: str,
        told: object = None,
        *,
        drain: Drain | None = None,
        name: str | None = None,
        holder: ClaimInfo | None = None,
        hint: str | None = None,
    ) -> None:
        from lockkit.carried import drain_in

        super().__init__(message, told, name=name, holder=holder, hint=hint)
        self.drain = drain or drain_in(told)

    def _told(self) -> dict[str, object]:
        from lockkit.carried import packed_owner

        return super()._told() | {"drain": self.drain._asdict() | {"owner": packed_owner(self.drain.owner)}}


class OwnershipError(LockkitError):
    """The operation needs a hold that no longer exists."""


class LeaseLost(OwnershipError):
    """The hold may have lapsed; work guarded by it must stop."""


class NotHeld(OwnershipError):
    """This handle holds nothing: it was released before, or it belongs to another process."""


class StaleFence(OwnershipError):
    """A guarded resource has refused this holder: a newer one opened it, or this fence's record is gone."""


class BackendError(LockkitError):
    """The store could not do what was asked.

    Attributes:
        busy: Whether the store refused only because of other calls: this one may succeed a moment later.
    """

    busy = False


class BackendUnavailable(BackendError):
    """The store cannot be reached or used."""


class PermissionDenied(BackendError):
    """The store refuses this user; the message names the right that is missing."""


class IncompatibleLayout(BackendError):
    """The store holds data written by a version of lockkit that this one must not touch."""


class OutcomeUnknown(BackendError):
    """A request was sent and not answered, and repeating it did not give an answer in time."""


class ReleaseFailed(LockkitError):
    """No release layer got a definite answer; the claim is removed in the background.

    Attributes:
        report: The :class:`~lockkit.facts.ReleaseReport`, layer by layer.
    """

    def __init__(
        self,
        message: str,
        told: object = None,
        *,
        report: ReleaseReport | None = None,
        name: str | None = None,
        hint: str | None = None,
    ) -> None:
        from lockkit.carried import report_in

        super().__init__(message, told, name=name, hint=hint)
        self.report = report or report_in(told)

    def _told(self) -> dict[str, object]:
        return super()._told() | {"report": self.report._asdict() | {"layers": (), "errors": ()}}


class CapabilityError(LockkitError):
    """The store in use cannot do this; raised when the lock is built, before any I/O."""


class ConfigError(LockkitError, ValueError):
    """A setting, name, URL or argument is not allowed; the message says what is allowed."""


class DevicesUnavailable(LockkitError):
    """There are no devices, or none can be examined: no card, no driver, or no usable library."""


class DevicesNotReady(DevicesUnavailable):
    """No device can be examined now: the driver did not answer in time, or is being replaced. Try later."""


class PluginError(LockkitError):
    """A plugin could not be loaded or broke its contract."""
