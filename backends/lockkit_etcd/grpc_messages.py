"""What the store says and hears, in the messages that python-etcd3 brings generated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from lockkit_etcd.transport import (
    Change,
    Compare,
    Deleted,
    Done,
    Found,
    Get,
    Granted,
    Header,
    Kv,
    Op,
    Put,
    Remaining,
    Status,
    Txn,
    TxnAnswer,
)

__all__ = ["Messages"]

_DELETE = 1
"""The kind of an Event; it is generated in a module that 0.12.0 keeps to itself."""
_ERRORS, _IN_USE, _LEARNER = 8, 9, 10
"""Fields of a StatusResponse that are younger than the generated code."""


class Messages:
    """Makes the requests and reads the answers.

    Args:
        rpc: The module ``etcd3.etcdrpc``.
    """

    def __init__(self, rpc: Any) -> None:
        self._rpc = rpc

    # -- requests

    def txn(self, request: Txn) -> Any:
        return self._rpc.TxnRequest(
            compare=[self._compare(each) for each in request.when],
            success=[self._op(each) for each in request.then],
            failure=[self._op(each) for each in request.otherwise],
        )

    def range(self, request: Get) -> Any:
        return self._rpc.RangeRequest(
            key=request.key, range_end=request.end, keys_only=request.keys_only, limit=request.limit
        )

    def grant(self, lease: int, ttl: int) -> Any:
        return self._rpc.LeaseGrantRequest(ID=lease, TTL=ttl)

    def revoke(self, lease: int) -> Any:
        return self._rpc.LeaseRevokeRequest(ID=lease)

    def keepalives(self, leases: Sequence[int]) -> list[Any]:
        return [self._rpc.LeaseKeepAliveRequest(ID=lease) for lease in leases]

    def remaining(self, lease: int) -> Any:
        return self._rpc.LeaseTimeToLiveRequest(ID=lease)

    def status(self) -> Any:
        return self._rpc.StatusRequest()

    def watch(self, key: bytes, end: bytes, start: int) -> Any:
        create = self._rpc.WatchCreateRequest(key=key, range_end=end, start_revision=start)
        return self._rpc.WatchRequest(create_request=create)

    def cancel(self, watch: int) -> Any:
        return self._rpc.WatchRequest(cancel_request=self._rpc.WatchCancelRequest(watch_id=watch))

    def _compare(self, compare: Compare) -> Any:
        kinds = self._rpc.Compare
        message = kinds(
            key=compare.key,
            range_end=compare.end,
            target=kinds.CompareTarget.Value(compare.what),
            result=kinds.CompareResult.Value(compare.how),
        )
        # Setting it, and be it to 0, is what says which of them is compared.
        if compare.what == "CREATE":
            message.create_revision = compare.to
        elif compare.what == "MOD":
            message.mod_revision = compare.to
        else:
            message.version = compare.to
        return message

    def _op(self, op: Op) -> Any:
        rpc = self._rpc
        if isinstance(op, Get):
            return rpc.RequestOp(request_range=self.range(op))
        if isinstance(op, Put):
            put = rpc.PutRequest(
                key=op.key,
                value=op.value,
                lease=op.lease,
                ignore_lease=op.same_lease,
                ignore_value=op.same_value,
            )
            return rpc.RequestOp(request_put=put)
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=op.key, range_end=op.end))

    # -- answers

    @staticmethod
    def header(answer: Any) -> Header:
        header = answer.header
        return Header(header.member_id, header.raft_term, header.revision)

    @staticmethod
    def found(answer: Any) -> Found:
        return Found([_kv(each) for each in answer.kvs], answer.more)

    def txn_answer(self, answer: Any) -> TxnAnswer:
        return TxnAnswer(
            self.header(answer), answer.succeeded, [self._answer(each) for each in answer.responses]
        )

    def granted(self, answer: Any) -> Granted:
        return Granted(self.header(answer), answer.TTL)

    @staticmethod
    def lasting(answer: Any) -> Remaining:
        return Remaining(answer.TTL, answer.grantedTTL)

    def status_of(self, endpoint: str, answer: Any) -> Status:
        young = dict.fromkeys((_IN_USE, _LEARNER), 0)
        errors = []
        for field in _unknown_fields(answer):
            if field.field_number == _ERRORS:
                errors.append(field.data.decode(errors="replace"))
            elif field.field_number in young:
                young[field.field_number] = field.data
        return Status(
            endpoint,
            answer.version,
            answer.header.member_id,
            answer.leader,
            answer.raftTerm,
            answer.dbSize,
            young[_IN_USE],
            errors,
            bool(young[_LEARNER]),
        )

    @staticmethod
    def changes(answer: Any) -> list[Change]:
        return [
            Change("DELETE" if event.type == _DELETE else "PUT", _kv(event.kv)) for event in answer.events
        ]

    def _answer(self, answer: Any) -> Found | Done | Deleted:
        kind = answer.WhichOneof("response")
        if kind == "response_range":
            return self.found(answer.response_range)
        return Done() if kind == "response_put" else Deleted(answer.response_delete_range.deleted)


def _kv(kv: Any) -> Kv:
    return Kv(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.lease)


def _unknown_fields(message: Any) -> Iterator[Any]:
    """What a message has that the generated code does not know; each protobuf tells it in its own way."""
    try:
        fields = import_module("google.protobuf.unknown_fields").UnknownFieldSet(message)
    except ImportError:
        fields = message.UnknownFields()
    for at in range(len(fields)):
        yield fields[at]
