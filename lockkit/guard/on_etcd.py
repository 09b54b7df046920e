"""The gate before an etcd key: one transaction compares the record's revision and writes record and value."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Protocol, cast

from lockkit.errors import BackendUnavailable, ConfigError, OutcomeUnknown
from lockkit.guard.gate import checked_key
from lockkit.guard.record import SUFFIX, Record
from lockkit.guard.swapping import Found, read_record
from lockkit.plugins.manager import PluginManager
from lockkit.store.spi import Refused, Unknown
from lockkit.values.redaction import redact

__all__ = ["EtcdKey", "Transactor", "text_of"]

_LARGEST = 1_000_000
"""Bytes; etcd's own limit for a request is 1.5 MiB by default."""


class Transactor(Protocol):
    """Anything that sends one transaction to etcd. ``etcd3gw.Etcd3Client`` fits as it is."""

    def transaction(self, txn: Mapping[str, Any], /) -> Mapping[str, Any]:
        """Send ``POST /v3/kv/txn`` once.

        Args:
            txn: The body, in the form of etcd's gateway: ``compare``, ``success``, ``failure``; keys and
                values in base64.

        Returns:
            Mapping: The gateway's unchanged answer: ``succeeded``, and ``responses`` with ``response_range``.

        Raises:
            Exception: There was no answer; the gate then repeats the transaction.
            Refused: The transaction was certainly not executed (:class:`lockkit.store.spi.Refused`).
        """


def text_of(raw: bytes) -> str:
    """Encode bytes for the gateway."""
    return b64encode(raw).decode()


def bytes_of(text: str) -> bytes:
    """Decode bytes from the gateway."""
    return b64decode(text)


class EtcdKey:
    """One key and the record beside it; see :class:`lockkit.guard.swapping.Versioned`."""

    largest: int | None = _LARGEST

    def __init__(self, client: Transactor | str, key: str | bytes) -> None:
        raw = checked_key(key)
        self._client = _connected(client) if isinstance(client, str) else client
        if not callable(getattr(self._client, "transaction", None)):
            raise ConfigError(
                f"{type(client).__name__} has no method transaction()",
                hint="pass a URL such as etcd://host:2379, or a client such as etcd3gw's",
            )
        self._record, self._value = raw + SUFFIX.encode(), raw
        self.where = f"the etcd key {raw.decode(errors='backslashreplace')!r}"

    def find(self, end: float) -> Found:  # noqa: ARG002 (the client has its own limits)
        record, version, _ = self._read()
        return Found(record, version)

    def look(self, end: float) -> tuple[Record | None, bytes | None]:  # noqa: ARG002
        record, _, value = self._read()
        return record, value

    def swap(self, found: Found, record: Record, value: bytes | None, end: float) -> Found | None:  # noqa: ARG002
        writes = [_put(self._record, str(record).encode())]
        if value is not None:
            writes.append(_put(self._value, value))
        same = {
            "key": text_of(self._record),
            "target": "MOD",
            "result": "EQUAL",
            "mod_revision": str(found.version),
        }
        answer = self._send({"compare": [same], "success": writes})
        if not answer.get("succeeded"):
            return None
        return Found(record, int(answer["header"]["revision"]))

    def forget(self) -> None:
        keys = (self._record, self._value)
        self._send({"success": [{"request_delete_range": {"key": text_of(key)}} for key in keys]})

    def _read(self) -> tuple[Record | None, int, bytes | None]:
        keys = (self._record, self._value)
        try:
            answer = self._send({"success": [{"request_range": {"key": text_of(key)}} for key in keys]})
        except Unknown as unknown:  # a read
            raise Refused(BackendUnavailable(unknown.error.message, hint=unknown.error.hint)) from unknown
        stored, value = (one["response_range"].get("kvs", [None])[0] for one in answer["responses"])
        record = None if stored is None else read_record(bytes_of(stored.get("value", "")), self.where)
        version = 0 if stored is None else int(stored["mod_revision"])
        return record, version, None if value is None else bytes_of(value.get("value", ""))

    def _send(self, txn: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            return self._client.transaction(txn)
        except (Refused, Unknown):
            raise
        except Exception as error:  # of another client
            told = " ".join(str(error).split()) or type(error).__name__
            raise Unknown(OutcomeUnknown(f"{self.where}: {told}")) from error


def _put(key: bytes, value: bytes) -> dict[str, Any]:
    return {"request_put": {"key": text_of(key), "value": text_of(value)}}


def _connected(url: str) -> Transactor:
    """A connection to the members that a URL names.

    Raises:
        ConfigError: The URL is not one of an etcd store.
    """
    transactions = PluginManager(()).backend(url).transactions
    if transactions is None:
        hint = "write etcd://host1:2379,host2:2379, or etcds:// for TLS"
        raise ConfigError(f"not a URL of etcd's gateway: {redact(url)}", hint=hint)
    return cast("Transactor", transactions(url))
