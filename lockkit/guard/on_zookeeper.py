"""The gate before a ZooKeeper node: one multi checks the record, and writes record and value.

Checking a node's version is not enough: it starts at 0 again when the node is removed and created again, and
a multi cannot check which transaction created a node. So a record has a child, its **mark**, with a random
name that is never used again, and the multi checks the mark too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lockkit.errors import BackendError, BackendUnavailable, ConfigError, OutcomeUnknown, PermissionDenied
from lockkit.guard.record import SUFFIX, Record
from lockkit.guard.swapping import Found, read_record
from lockkit.store.spi import Refused, Unknown

if TYPE_CHECKING:
    from kazoo.client import KazooClient

__all__ = ["ZooKeeperNode"]

_LARGEST = 1_000_000
"""Bytes; ZooKeeper's own limit for a request (jute.maxbuffer) is 1 MiB by default."""
_LONGEST_PATH = 4096
_LEAST = 0.05


class _Version(NamedTuple):
    """The version of a record, and the name of its mark; None and empty if they do not exist."""

    number: int | None = None
    mark: str = ""


class ZooKeeperNode:
    """One node and the record beside it; see :class:`lockkit.guard.swapping.Versioned`."""

    largest: int | None = _LARGEST

    def __init__(self, client: KazooClient, path: str) -> None:
        if not all(hasattr(client, call) for call in ("transaction", "get_async")):
            raise ConfigError(f"not a client of kazoo: {type(client).__name__}")
        _check(path)
        self._client: Any = client
        self._record, self._value = path + SUFFIX, path
        self.where = f"the ZooKeeper node {path!r}"

    def find(self, end: float) -> Found:
        # A server may be behind the others; a swap would notice the old version, but read the same again.
        self._done(self._client.sync_async(self._record), end)
        # The mark first: if the swap still finds it, nobody has re-created the record since it was read.
        marks = self._done(self._client.get_children_async(self._record), end)
        stored = self._get(self._record, end)
        if stored is None:
            return Found(None, None)
        return Found(read_record(stored[0], self.where), _Version(stored[1].version, min(marks or [""])))

    def look(self, end: float) -> tuple[Record | None, bytes | None]:
        # The value first: if the record is still one's own afterwards, no newer holder had written it.
        value = self._get(self._value, end)
        return self.find(end).record, None if value is None else value[0]

    def swap(self, found: Found, record: Record, value: bytes | None, end: float) -> Found | None:
        version = found.version if isinstance(found.version, _Version) else _Version()
        answers = self._multi(version, record, value, end, create=False)
        if value is not None and _kinds(answers) & {"NoNodeError"}:
            answers = self._multi(version, record, value, end, create=True)  # the first value
        kinds = _kinds(answers)
        if not kinds:
            number = 0 if version.number is None else answers[0].version
            return Found(record, _Version(number, version.mark or record.opening))
        if kinds & {"BadVersionError", "NodeExistsError"}:
            return None
        if "NoNodeError" in kinds:
            if version.number is not None:
                return None  # the record was removed meanwhile
            raise Refused(
                BackendError(f"{self.where} has no parent", hint="client.ensure_path(its parent)"),
                retry=False,
            )
        raise self._refused(kinds)

    def _multi(
        self, version: _Version, record: Record, value: bytes | None, end: float, *, create: bool
    ) -> Sequence[Any]:
        """Write record and value in one step if the record has not changed; the answer to each operation."""
        multi = self._client.transaction()
        if version.number is None:
            multi.create(self._record, str(record).encode())
        else:
            multi.set_data(self._record, str(record).encode(), version=version.number)
        if version.mark:
            multi.check(f"{self._record}/{version.mark}", -1)
        else:
            multi.create(f"{self._record}/{record.opening}")  # random, and fresh for each opening
        if value is not None:
            (multi.create if create else multi.set_data)(self._value, value)
        try:
            answers: Sequence[Any] = multi.commit_async().get(timeout=max(end - time.monotonic(), _LEAST))
        except Exception as error:
            raise self._unanswered(error) from error
        return answers

    def forget(self) -> None:
        for path in (self._value, self._record):
            if self._client.exists(path):
                self._client.delete(path, recursive=True)

    def _get(self, path: str, end: float) -> tuple[bytes, Any] | None:
        """The data and the state of a node; None if there is none."""
        found: tuple[bytes, Any] | None = self._done(self._client.get_async(path), end)
        return found

    def _done(self, request: Any, end: float) -> Any:
        """The answer to a read; None if there is no such node."""
        try:
            return request.get(timeout=max(end - time.monotonic(), _LEAST))
        except Exception as error:
            kind = type(error).__name__
            if kind == "NoNodeError":
                return None
            if kind in ("NoAuthError", "AuthFailedError"):
                raise self._refused({kind}) from error
            raise Refused(BackendUnavailable(f"{self.where}: {str(error) or kind}")) from error

    def _refused(self, kinds: set[str]) -> Refused:
        told = f"{self.where}: {', '.join(sorted(kinds))}"
        if {"NoAuthError", "AuthFailedError"} & kinds:
            hint = (
                f"the user needs read and write on it, read, write and create on {self._record!r}, and "
                "create on their parent"
            )
            return Refused(PermissionDenied(told, hint=hint), retry=False)
        return Refused(BackendError(told), retry=False)

    def _unanswered(self, error: Exception) -> Refused | Unknown:
        kind = type(error).__name__
        told = f"{self.where}: {str(error) or kind}"
        if kind in (
            "ConnectionClosedError",
            "AuthFailedError",
        ):  # the client is not started, or closed: not sent
            return Refused(BackendUnavailable(told, hint="client.start()"), retry=False)
        return Unknown(OutcomeUnknown(told))


def _kinds(answers: Sequence[Any]) -> set[str]:
    """The errors among the answers to a multi. Two say only that another operation has failed."""
    failed = {type(answer).__name__ for answer in answers if isinstance(answer, Exception)}
    return failed - {"RolledBackError", "RuntimeInconsistency"} or failed


def _check(path: object) -> None:
    if (
        not isinstance(path, str)
        or not path.startswith("/")
        or not {"", ".", ".."}.isdisjoint(path.split("/")[1:])
        or any(ord(char) < 32 for char in path)
        or len(path.encode(errors="replace")) > _LONGEST_PATH
    ):
        raise ConfigError(
            f"not the path of a node: {path!r:.100}", hint="write /name/name, without an empty name, . and .."
        )
