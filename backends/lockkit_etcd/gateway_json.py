"""Requests and answers as the JSON gateway writes them.

Keys and values are base64, 64-bit numbers are strings, and a zero, false or empty field is left out.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec.json
from msgspec import Struct

from lockkit_etcd.transport import (
    ORDERS,
    Change,
    Compare,
    Delete,
    Found,
    Get,
    Granted,
    Header,
    Kept,
    Op,
    Put,
    Ranged,
    Remaining,
    Status,
    Txn,
    TxnAnswer,
)

__all__ = [
    "CALLS",
    "MEANINGLESS",
    "decoded",
    "kept_answers",
    "txn_answer",
    "txn_body",
    "watch_body",
    "watch_message",
]

A = TypeVar("A")

_COMPARED = {"CREATE": "create_revision", "MOD": "mod_revision", "VERSION": "version"}
decoded = msgspec.json.decode
MEANINGLESS = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
"""The exceptions that reading raises if a text is not an answer of etcd."""


def _b64(raw: bytes) -> str:
    return b2a_base64(raw, newline=False).decode()


def txn_body(request: Txn) -> bytes:
    """A transaction."""
    return _txn_text(request).encode()


def _txn_text(request: Txn) -> str:
    when = ",".join([_compare(each) for each in request.when])
    then = ",".join([_op(each) for each in request.then])
    otherwise = ",".join([_op(each) for each in request.otherwise])
    return f'{{"compare":[{when}],"success":[{then}],"failure":[{otherwise}]}}'


def watch_body(ranges: Sequence[tuple[bytes, bytes, int]]) -> bytes:
    """Watches on one stream, each a range of keys and the revision that it begins with."""
    return b"\n".join([_watch(*each) for each in ranges])


def _watch(key: bytes, end: bytes, start: int) -> bytes:
    create = f'"key":"{_b64(key)}"{_end(end)},"start_revision":"{start}"'
    return f'{{"create_request":{{{create}}}}}'.encode()


def _compare(each: Compare) -> str:
    # The gateway takes a microsecond per field. "The version is 0" (no such key) is in each acquire, twice.
    target = "" if each.what == "VERSION" else f',"target":"{each.what}"'
    result = "" if each.how == "EQUAL" else f',"result":"{each.how}"'
    value = f',"{_COMPARED[each.what]}":"{each.to}"' if each.to else ""
    return f'{{"key":"{_b64(each.key)}"{_end(each.end)}{target}{result}{value}}}'


def _op(op: Op) -> str:
    if type(op) is Txn:
        return f'{{"request_txn":{_txn_text(op)}}}'
    if type(op) is Put:
        bound = ',"ignore_lease":true' if op.same_lease else f',"lease":"{op.lease}"'
        return f'{{"request_put":{{"key":"{_b64(op.key)}","value":"{_b64(op.value)}"{bound}}}}}'
    if type(op) is Get:
        return f'{{"request_range":{_get(op)}}}'
    assert type(op) is Delete
    return f'{{"request_delete_range":{{"key":"{_b64(op.key)}"{_end(op.end)}}}}}'


def _get(op: Get) -> str:
    only = ',"keys_only":true' if op.keys_only else ""
    limit = f',"limit":"{op.limit}"' if op.limit else ""
    until = f',"max_create_revision":"{op.until}"' if op.until else ""
    order = f',"sort_order":"{ORDERS[op.first]}","sort_target":"CREATE"' if op.first else ""
    at = f',"revision":"{op.at}"' if op.at else ""
    return f'{{"key":"{_b64(op.key)}"{_end(op.end)}{only}{limit}{until}{order}{at}}}'


def _end(end: bytes) -> str:
    return f',"range_end":"{_b64(end)}"' if end else ""


# -- answers


def _reader(kind: type[A]) -> Callable[[bytes], A]:
    return msgspec.json.Decoder(kind, strict=False).decode


_txn, _range = _reader(TxnAnswer), _reader(Ranged)


def txn_answer(text: bytes, asked: Txn) -> TxnAnswer:
    """The answer to a transaction.

    Raises:
        ValueError: The text does not answer each op.
    """
    answer = _txn(text)
    for op, each in zip(asked.then if answer.succeeded else asked.otherwise, answer.answers, strict=True):
        if type(op) is Get:
            _check(op, each.found)
    return answer


def _range_answer(text: bytes, asked: Get) -> Ranged:
    answer = _range(text)
    _check(asked, answer)
    return answer


def _check(asked: Get, found: Found | None) -> None:
    first, end = asked.key, asked.end or asked.key + b"\0"
    if found is None or not all(first <= kv.key < end for kv in found.kvs):
        raise ValueError("it is the answer to another read")


class _Revoked(Struct):
    header: Header


class _Told(Struct):
    """One message of a watch."""

    header: Header
    canceled: bool = False
    cancel_reason: str = ""
    compact_revision: int = 0
    events: list[Change] = []


class _Message(Struct):
    result: _Told | None = None


watch_message = _reader(_Message)
"""Reads one message of a watch; without a result, it is an error."""


class _Kept(Struct, gc=False, rename={"lease": "ID", "ttl": "TTL"}):
    header: Header
    lease: int
    ttl: int = 0


class _KeptMessage(Struct, gc=False):
    result: _Kept


_KEPT = msgspec.json.Decoder(_KeptMessage, strict=False)


def kept_answers(text: bytes, sent: float) -> dict[int, Kept]:
    """The answers to a body of keepalives, one per line. An incomplete line, or an error, ends them.

    Leases with the same answer share one object, because among ten thousand each object costs time.

    Raises:
        ValueError: No lease was answered.
    """
    try:
        messages = _KEPT.decode_lines(text)
    except MEANINGLESS:
        messages = _as_far_as_meaningful(text)
    kept: dict[int, Kept] = {}
    last = Kept(-1, 0, 0, sent)
    for message in messages:
        told = message.result
        ttl, header = told.ttl, told.header
        if last.ttl != ttl or last.term != header.term or last.member != header.member:
            last = Kept(ttl, header.member, header.term, sent)
        kept[told.lease] = last
    if not kept:
        raise ValueError("no lease was answered")
    return kept


def _as_far_as_meaningful(text: bytes) -> list[_KeptMessage]:
    """The messages before the first line that is none."""
    messages: list[_KeptMessage] = []
    for each in filter(None, text.split(b"\n")):
        try:
            messages.append(_KEPT.decode(each))
        except MEANINGLESS:
            break
    return messages


def _unasked(kind: type[A]) -> Callable[[bytes, Any], A]:
    """Reads an answer that can be understood without the request."""
    read = _reader(kind)
    return lambda text, _asked: read(text)


def _ids(leases: Sequence[int]) -> bytes:
    return b"\n".join([b'{"ID":"%d"}' % lease for lease in leases])


CALLS: Mapping[str, tuple[bytes, Callable[[Any], bytes], Callable[[bytes, Any], Any]]] = {
    "txn": (b"kv/txn", txn_body, txn_answer),
    "raw": (b"kv/txn", lambda body: body, lambda text, _asked: dict(decoded(text))),
    "range": (b"kv/range", lambda request: _get(request).encode(), _range_answer),
    "grant": (b"lease/grant", lambda asked: b'{"ID":"%d","TTL":"%d"}' % asked, _unasked(Granted)),
    "revoke": (b"lease/revoke", lambda lease: _ids([lease]), _unasked(_Revoked)),
    "remaining": (b"lease/timetolive", lambda lease: _ids([lease]), _unasked(Remaining)),
    "keepalive": (b"lease/keepalive", _ids, kept_answers),
    "status": (b"maintenance/status", lambda _member: b"{}", _unasked(Status)),
}
"""For each call of a transport: the path, the body of a request, and the meaning of an answer to it.

A request is the arguments of the call; the meaning of a keepalive's answer takes the time at which the
request was sent instead.
"""
