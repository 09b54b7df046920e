"""Audit records: each change through the server is recorded on disk, with its sender, before it is made."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from lockkit.errors import BackendError, LockkitError, PermissionDenied
from lockkit.lib.printable import printable
from lockkit.observe import journal
from lockkit.server.problems import HttpProblem

if TYPE_CHECKING:
    from lockkit.server.calls import Call
    from lockkit.server.stores import ServerStore

__all__ = ["FILE", "Outcome", "audited"]

_log = logging.getLogger("lockkit.server")

FILE: Final = "serve.jsonl"
"""The journal, in the state folder. Only its owner can read it."""


class Outcome:
    """The outcome of an action, as far as it is known."""

    def __init__(self) -> None:
        self.word = "unknown"


@contextlib.contextmanager
def audited(call: Call, store: ServerStore, action: str, **about: object) -> Iterator[Outcome]:
    """Write a record, do something, and write what came of it.

    Raises:
        HttpProblem: The record cannot be written, so nothing is done.
    """
    assert call.visitor is not None
    client = store.client
    forwarded = call.sender.forwarded_for
    record = {
        "action": action,
        "by": call.visitor.name,
        "scope": call.visitor.scope,
        "from": call.sender.peer,
        **({"forwarded_for": forwarded} if forwarded else {}),
        "namespace": client.namespace,
        "url": client.url,
        **about,
    }
    try:
        folder = client.config.state_place().path
        identity = journal.append(folder, record, file=FILE)
    except (OSError, LockkitError) as error:
        raise HttpProblem(
            507, "no_audit", f"nothing was done, because the audit record cannot be written: {error}"
        ) from None
    outcome = Outcome()
    try:
        yield outcome
    except LockkitError as error:
        known = not isinstance(error, BackendError) or isinstance(error, PermissionDenied)
        outcome.word = f"{'refused' if known else 'unknown'}: {type(error).__name__}"
        raise
    finally:
        _log.warning(
            "%s by %s from %s: %s: %s",
            action,
            call.visitor.name,
            (call.sender.peer or "unknown address") + (f" (for {forwarded})" if forwarded else ""),
            printable(", ".join(f"{key}={value!r}" for key, value in about.items())),
            outcome.word,
        )
        try:
            journal.append(folder, {"of": identity, "outcome": outcome.word}, file=FILE)
        except OSError as error:
            _log.error("the outcome of %s is not in the audit records: %s", identity, error)
