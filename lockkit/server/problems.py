"""Errors as HTTP answers: a status, and a document that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lockkit.errors import (
    BackendError,
    CapabilityError,
    ConfigError,
    DevicesNotReady,
    DevicesUnavailable,
    Drained,
    IncompatibleLayout,
    LockkitError,
    NotHeld,
    OutcomeUnknown,
    PermissionDenied,
)
from lockkit.server.documents import Problem
from lockkit.views.making import made_of

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo

__all__ = ["HttpProblem", "as_problem", "document"]

_STATUS: tuple[tuple[type[LockkitError], int], ...] = (
    (PermissionDenied, 502),
    (IncompatibleLayout, 502),
    (OutcomeUnknown, 504),
    (BackendError, 503),
    (Drained, 409),
    (NotHeld, 409),
    (CapabilityError, 501),
    (DevicesNotReady, 503),
    (DevicesUnavailable, 404),
    (ConfigError, 400),
)
"""The status of each error of lockkit; the first match counts."""


class HttpProblem(Exception):
    """A request that is refused.

    Args:
        status: The status of the answer.
        kind: A word for programs.
        message: The problem, in a sentence.
        hint: The remedy.
        name: The lock.
        holder: The claim that is in the way.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        hint: str | None = None,
        name: str | None = None,
        holder: ClaimInfo | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.hint = hint
        self.name = name
        self.holder = holder
        self.headers = dict(headers or {})


def as_problem(error: LockkitError) -> HttpProblem:
    """The answer to a request that an error of lockkit ended."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return HttpProblem(
        status,
        type(error).__name__,
        error.message,
        hint=error.hint or None,
        name=error.name,
        holder=error.holder,
    )


def document(problem: HttpProblem) -> Problem:
    """The document of an answer that is an error."""
    return made_of(Problem, problem, error=problem.kind)
