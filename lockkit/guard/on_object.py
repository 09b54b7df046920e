"""The gate before an object of an object store: each write is conditional on the record's version (If-Match).

One object holds record and value, because no object store changes two at once: a first line with the record,
then the value. The line also makes every version differ, so that an ETag that is a digest never comes back.
"""

from __future__ import annotations

import re
import secrets
import threading
from typing import TYPE_CHECKING, Any

from lockkit.errors import (
    BackendUnavailable,
    CapabilityError,
    ConfigError,
    IncompatibleLayout,
    OutcomeUnknown,
    PermissionDenied,
)
from lockkit.guard.gate import checked_key
from lockkit.guard.record import SUFFIX, Record
from lockkit.guard.swapping import Found
from lockkit.store.spi import Refused, Unknown

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["StoredObject"]

_HEAD = re.compile(rb"lockkit-fence/1 ([0-9a-f.]{58}) ([+-])\n")
_WRONG = '"00000000000000000000000000000000"'
_LARGEST = 64 * 1024 * 1024
_CONFLICT = re.compile(r"\b409\b|ConditionalRequestConflict")


class StoredObject:
    """One object; see :class:`lockkit.guard.swapping.Versioned`."""

    largest: int | None = _LARGEST

    def __init__(self, store: ObjectStore, path: str) -> None:
        key = checked_key(path)
        parts = str(path).split("/")
        if not {"", ".", ".."}.isdisjoint(parts) or any(byte < 32 for byte in key):
            raise ConfigError(f"not the path of an object: {path!r:.100}", hint="write name/name")
        if not callable(getattr(store, "put", None)) or not callable(getattr(store, "get", None)):
            raise ConfigError(f"not a store of obstore: {type(store).__name__}")
        config = getattr(store, "retry_config", {"max_retries": 0})
        if (config or {}).get("max_retries") != 0:
            raise ConfigError(
                "obstore repeats requests of this store by itself, so that a refusal may be the answer to a "
                "write that was done",
                hint='make the store with retry_config={"max_retries": 0}; the gate itself repeats what may '
                "be repeated",
            )
        self._store: Any = store
        self._path = path
        self._proved = False
        self._mutex = threading.Lock()
        self.where = f"the object {path!r}"

    def find(self, end: float) -> Found:  # noqa: ARG002 (the store has its own limits)
        self._prove()
        return self._read()

    def look(self, end: float) -> tuple[Record | None, bytes | None]:  # noqa: ARG002
        found = self._read()
        return found.record, found.rest

    def swap(self, found: Found, record: Record, value: bytes | None, end: float) -> Found | None:  # noqa: ARG002
        value = found.rest if value is None else value
        mark = b"-" if value is None else b"+"
        content = b"lockkit-fence/1 " + str(record).encode() + b" " + mark + b"\n" + (value or b"")
        tag = self._put(self._path, content, found.version)
        return None if tag is None else Found(record, tag, value)

    def forget(self) -> None:
        self._store.delete(self._path)

    def _read(self) -> Found:
        try:
            got = self._store.get(self._path)
            content, tag = bytes(got.bytes()), got.meta["e_tag"]
        except FileNotFoundError:  # obstore's, too
            return Found(None, None)
        except Exception as error:
            raise self._refused(error) from error
        head = _HEAD.match(content)
        if head is None:
            raise Refused(
                IncompatibleLayout(
                    f"{self.where} was not written by a gate",
                    hint="guard another object, and move its content",
                ),
                retry=False,
            )
        return Found(Record.of(head[1].decode()), tag, content[head.end() :] if head[2] == b"+" else None)

    def _put(self, path: str, content: bytes, version: object) -> str | None:
        """Write if the version is the same, or None and there is no object; return None if it is not.

        Raises:
            Refused: The store has refused for another reason.
            Unknown: No answer, or a conflict of two requests.
        """
        mode: object = "create" if version is None else {"e_tag": version}
        try:
            tag: str | None = self._store.put(path, content, mode=mode)["e_tag"]
        except Exception as error:
            kinds = {kind.__name__ for kind in type(error).__mro__}
            text = " ".join(str(error).split())[:300]
            if _CONFLICT.search(text):
                raise Unknown(OutcomeUnknown(f"{self.where}: {text}")) from error
            if kinds & {"PreconditionError", "AlreadyExistsError", "FileExistsError", "FileNotFoundError"}:
                return None
            if kinds & {
                "PermissionDeniedError",
                "UnauthenticatedError",
                "PermissionError",
                "NotImplementedError",
            }:
                raise self._refused(error) from error
            raise Unknown(OutcomeUnknown(f"{self.where}: {text}")) from error
        if not tag:
            told = f"{self.where} has no ETag, so no later write could be conditional"
            raise Refused(CapabilityError(told, hint="use another store"), retry=False)
        return tag

    def _prove(self) -> None:
        """Once, write under conditions that are wrong: there are stores that accept the header and ignore it.

        Raises:
            Refused: The store does not keep to the conditions.
        """
        with self._mutex:
            if self._proved:
                return
            path = f"{self._path}.{secrets.token_hex(8)}{SUFFIX}-probe"
            try:
                ignored = self._ignored(path)
            except Unknown as unknown:  # of the probe: the object itself was not touched
                raise Refused(BackendUnavailable(unknown.error.message)) from unknown
            if ignored:
                raise Refused(
                    CapabilityError(
                        f"the store of {self.where} ignores {' and '.join(ignored)}, so it cannot refuse a "
                        "stale write",
                        hint="use a store with conditional writes",
                    ),
                    retry=False,
                )
            self._proved = True

    def _ignored(self, path: str) -> list[str]:
        """Conditions that the store ignores, tried on a probe that is removed again."""
        if self._put(path, b"probe", None) is None:
            raise Refused(BackendUnavailable(f"cannot write {path!r}"))
        try:
            conditions = (("If-Match", _WRONG), ("If-None-Match", None))
            return [what for what, wrong in conditions if self._put(path, b"wrong", wrong) is not None]
        finally:
            try:
                self._store.delete(path)
            except Exception as error:
                raise self._refused(error) from error

    def _refused(self, error: Exception) -> Refused:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        told = f"{self.where}: {' '.join(str(error).split())[:300]}"
        if kinds & {"PermissionDeniedError", "UnauthenticatedError", "PermissionError"}:
            hint = "the user needs to get and put it, and to put and delete a probe beside it"
            return Refused(PermissionDenied(told, hint=hint), retry=False)
        if "NotImplementedError" in kinds:
            return Refused(CapabilityError(told, hint="use a store with conditional writes"), retry=False)
        return Refused(BackendUnavailable(told))
