"""The store's requests and answers, as the messages that python-etcd3 brings generated."""

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
"""The kind of an Event that deletes: version 0.12.0 does not export the names of the kinds."""
_ERRORS, _IN_USE, _LEARNER = 8, 9, 10
"""The numbers of fields of a StatusResponse that are younger than the generated code."""


class Messages:
    """Makes the requests and reads the answers.

    Args:
        stubs: The module with the generated messages.
    """

    def __init__(self, stubs: Any) -> None:
        self._stubs = stubs

    # -- requests

    def txn(self, request: Txn) -> Any:
        return self._stubs.TxnRequest(
            compare=[self._compare(each) for each in request.when],
            success=[self._op(each) for each in request.then],
            failure=[self._op(each) for each in request.otherwise],
        )

    def range(self, request: Get) -> Any:
        return self._stubs.RangeRequest(
            key=request.key, range_end=request.end, keys_only=request.keys_only, limit=request.limit
        )

    def grant(self, lease: int, ttl: int) -> Any:
        return self._stubs.LeaseGrantRequest(ID=lease, TTL=ttl)

    def revoke(self, lease: int) -> Any:
        return self._stubs.LeaseRevokeRequest(ID=lease)

    def keepalives(self, leases: Sequence[int]) -> list[Any]:
        return [self._stubs.LeaseKeepAliveRequest(ID=lease) for lease in leases]

    def remaining(self, lease: int) -> Any:
        return self._stubs.LeaseTimeToLiveRequest(ID=lease)

    def status(self) -> Any:
        return self._stubs.StatusRequest()

    def watch(self, key: bytes, end: bytes, start: int) -> Any:
        create = self._stubs.WatchCreateRequest(key=key, range_end=end, start_revision=start)
        return self._stubs.WatchRequest(create_request=create)

    def cancel(self, watch: int) -> Any:
        return self._stubs.WatchRequest(cancel_request=self._stubs.WatchCancelRequest(watch_id=watch))

    def _compare(self, compare: Compare) -> Any:
        kinds = self._stubs.Compare
        message = kinds(
            key=compare.key,
            range_end=compare.end,
            target=kinds.CompareTarget.Value(compare.what),
            result=kinds.CompareResult.Value(compare.how),
        )
        # The field that is set, to 0 too, says what is compared.
        if compare.what == "CREATE":
            message.create_revision = compare.to
        elif compare.what == "MOD":
            message.mod_revision = compare.to
        else:
            message.version = compare.to
        return message

    def _op(self, op: Op) -> Any:
        stubs = self._stubs
        if isinstance(op, Get):
            return stubs.RequestOp(request_range=self.range(op))
        if isinstance(op, Put):
            put = stubs.PutRequest(
                key=op.key,
                value=op.value,
                lease=op.lease,
                ignore_lease=op.same_lease,
                ignore_value=op.same_value,
            )
            return stubs.RequestOp(request_put=put)
        return stubs.RequestOp(request_delete_range=stubs.DeleteRangeRequest(key=op.key, range_end=op.end))

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
    def remaining_of(answer: Any) -> Remaining:
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
    """The fields of a message that the generated code does not know; each protobuf has its own way to ask."""
    try:
        fields = import_module("google.protobuf.unknown_fields").UnknownFieldSet(message)
    except ImportError:
        fields = message.UnknownFields()
    for at in range(len(fields)):
        yield fields[at]
