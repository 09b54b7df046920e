"""The store's requests and answers, as the messages that python-etcd3 brings generated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from lockkit_etcd.transport import (
    ORDERS,
    Answer,
    Change,
    Compare,
    Found,
    Get,
    Granted,
    Header,
    Kv,
    Op,
    Put,
    Ranged,
    Remaining,
    Status,
    Txn,
    TxnAnswer,
)

__all__ = ["Messages", "changes"]

_DELETE = 1
"""The kind of an Event that deletes: version 0.12.0 does not export the names of the kinds."""
_ERRORS, _IN_USE, _LEARNER = 8, 9, 10
"""The numbers of fields of a StatusResponse that are younger than the generated code."""


class Messages:
    """Makes the requests and reads the answers.

    Args:
        stubs: The module with the generated messages.

    Attributes:
        calls: For each call of a transport, the maker of its message and the reader of its answer. A request
            is the arguments of the call.
    """

    def __init__(self, stubs: Any) -> None:
        self._stubs = stubs
        self.calls: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
            "txn": (self._txn, _txn_answer),
            "range": (
                self._range,
                lambda answer, _: Ranged(
                    [_kv(each) for each in answer.kvs], answer.more, answer.count, header=_header(answer)
                ),
            ),
            "grant": (
                lambda asked: stubs.LeaseGrantRequest(ID=asked[0], TTL=asked[1]),
                lambda answer, _: Granted(_header(answer), answer.TTL),
            ),
            "revoke": (lambda lease: stubs.LeaseRevokeRequest(ID=lease), lambda *_: None),
            "keepalive": (
                lambda leases: [stubs.LeaseKeepAliveRequest(ID=lease) for lease in leases],
                lambda answers, _: answers,
            ),
            "remaining": (
                lambda lease: stubs.LeaseTimeToLiveRequest(ID=lease),
                lambda answer, _: Remaining(answer.TTL, answer.grantedTTL),
            ),
            "status": (lambda _: stubs.StatusRequest(), _status),
        }

    def watch(self, key: bytes, end: bytes, start: int) -> Any:
        """The request for a watch."""
        create = self._stubs.WatchCreateRequest(key=key, range_end=end, start_revision=start)
        return self._stubs.WatchRequest(create_request=create)

    def cancel(self, watch: int) -> Any:
        """The request to end a watch."""
        return self._stubs.WatchRequest(cancel_request=self._stubs.WatchCancelRequest(watch_id=watch))

    def _txn(self, request: Txn) -> Any:
        return self._stubs.TxnRequest(
            compare=[self._compare(each) for each in request.when],
            success=[self._op(each) for each in request.then],
            failure=[self._op(each) for each in request.otherwise],
        )

    def _range(self, request: Get) -> Any:
        kinds = self._stubs.RangeRequest
        order = {}
        if request.first:
            order["sort_order"] = kinds.SortOrder.Value(ORDERS[request.first])
            order["sort_target"] = kinds.SortTarget.Value("CREATE")
        return kinds(
            key=request.key,
            range_end=request.end,
            keys_only=request.keys_only,
            limit=request.limit,
            max_create_revision=request.until,
            revision=request.at,
            **order,
        )

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
        if isinstance(op, Txn):
            return stubs.RequestOp(request_txn=self._txn(op))
        if isinstance(op, Get):
            return stubs.RequestOp(request_range=self._range(op))
        if isinstance(op, Put):
            put = stubs.PutRequest(
                key=op.key,
                value=op.value,
                lease=op.lease,
                ignore_lease=op.same_lease,
            )
            return stubs.RequestOp(request_put=put)
        return stubs.RequestOp(request_delete_range=stubs.DeleteRangeRequest(key=op.key, range_end=op.end))


# -- answers


def changes(answer: Any) -> list[Change]:
    """The changes in a message of a watch."""
    return [Change(_kv(event.kv), "DELETE" if event.type == _DELETE else "PUT") for event in answer.events]


def _header(answer: Any) -> Header:
    header = answer.header
    return Header(header.member_id, header.raft_term, header.revision)


def _txn_answer(answer: Any, _asked: Txn) -> TxnAnswer:
    return TxnAnswer(_header(answer), answer.succeeded, [_answer(each) for each in answer.responses])


def _answer(answer: Any) -> Answer:
    ranged = answer.WhichOneof("response") == "response_range"
    return Answer(_found(answer.response_range) if ranged else None)


def _found(answer: Any) -> Found:
    return Found([_kv(each) for each in answer.kvs], answer.more, answer.count)


def _kv(kv: Any) -> Kv:
    return Kv(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.lease)


def _status(answer: Any, _asked: None) -> Status:
    young: dict[int, list[Any]] = {_ERRORS: [], _IN_USE: [0], _LEARNER: [False]}
    for field in _unknown_fields(answer):
        young.setdefault(field.field_number, []).append(field.data)
    return Status(
        _header(answer),
        answer.version,
        answer.leader,
        answer.raftTerm,
        answer.dbSize,
        young[_IN_USE][-1],
        [each.decode(errors="replace") for each in young[_ERRORS]],
        bool(young[_LEARNER][-1]),
    )


def _unknown_fields(message: Any) -> Iterator[Any]:
    """The fields of a message that the generated code does not know; each protobuf has its own way to ask."""
    try:
        fields = import_module("google.protobuf.unknown_fields").UnknownFieldSet(message)
    except ImportError:
        fields = message.UnknownFields()
    for at in range(len(fields)):
        yield fields[at]
