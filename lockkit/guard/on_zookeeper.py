"""The gate before a ZooKeeper node: one multi checks the version of the record, and writes record and value."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
        # A server may be behind the others. Only a swap with an old version would notice, and then read the same again.
        self._done(self._client.sync_async(self._record), end)
        stored = self._get(self._record, end)
        if stored is None:
            return Found(None, None)
        return Found(read_record(stored[0], self.where), stored[1].version)

    def look(self, end: float) -> tuple[Record | None, bytes | None]:
        # The value first: if the record is still one's own afterwards, no newer holder had written it.
        value = self._get(self._value, end)
        return self.find(end).record, None if value is None else value[0]

    def swap(self, found: Found, record: Record, value: bytes | None, end: float) -> Found | None:
        answers = self._multi(found, record, value, end, create=False)
        if value is not None and _kinds(answers) & {"NoNodeError"}:
            answers = self._multi(found, record, value, end, create=True)  # the first value
        kinds = _kinds(answers)
        if not kinds:
            return Found(record, 0 if found.version is None else answers[0].version)
        if kinds & {"BadVersionError", "NodeExistsError"}:
            return None
        if "NoNodeError" in kinds:
            if found.version is not None:
                return None  # the record was removed meanwhile
            raise Refused(
                BackendError(f"{self.where} has no parent", hint="client.ensure_path(its parent)"),
                retry=False,
            )
        raise self._refused(kinds)

    def _multi(
        self, found: Found, record: Record, value: bytes | None, end: float, *, create: bool
    ) -> Sequence[Any]:
        """Write record and value in one step, if the version of the record is still the same; the answer to each."""
        multi = self._client.transaction()
        if found.version is None:
            multi.create(self._record, str(record).encode())
        else:
            multi.set_data(self._record, str(record).encode(), version=found.version)
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
                self._client.delete(path)

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
            hint = f"the user needs read and write on it and on {self._record!r}, and create on their parent"
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
