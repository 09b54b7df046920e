"""Requests and answers as the JSON gateway writes them.

Keys and values are in base64, 64-bit numbers are strings, and a field that is zero, false or empty is left out.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping, Sequence
from typing import Any

from lockkit_etcd.transport import (
    Change,
    Compare,
    Delete,
    Deleted,
    Done,
    Found,
    Get,
    Granted,
    Header,
    Kept,
    Kv,
    Op,
    Put,
    Remaining,
    Status,
    Txn,
    TxnAnswer,
)

__all__ = [
    "MEANINGLESS",
    "answers",
    "changes",
    "found",
    "grant_answer",
    "header",
    "kept_answers",
    "range_answer",
    "range_body",
    "remaining_answer",
    "status_answer",
    "txn_answer",
    "txn_body",
    "watch_body",
]

_COMPARED = {"CREATE": "create_revision", "MOD": "mod_revision", "VERSION": "version"}
MEANINGLESS = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
"""Raised when a text that is no answer of etcd is read as one."""
_KEPT = re.compile(rb'\{"result":\{"header":(\{[^{}]*\}),"ID":"(\d+)"(?:,"TTL":"(\d+)")?\}\}')
_DONE = Done()


def _b64(raw: bytes) -> str:
    return b2a_base64(raw, newline=False).decode()


def txn_body(request: Txn) -> bytes:
    """A transaction."""
    when = ",".join([_compare(each) for each in request.when])
    then = ",".join([_op(each) for each in request.then])
    otherwise = ",".join([_op(each) for each in request.otherwise])
    return f'{{"compare":[{when}],"success":[{then}],"failure":[{otherwise}]}}'.encode()


def range_body(request: Get) -> bytes:
    """A read."""
    return _get(request).encode()


def watch_body(key: bytes, end: bytes, start: int, also: Sequence[bytes] = ()) -> bytes:
    """A watch, or several on one stream."""
    ranges = [(key, end), *((each, b"") for each in also)]
    return b"\n".join([_watch(*each, start) for each in ranges])


def _watch(key: bytes, end: bytes, start: int) -> bytes:
    create = f'"key":"{_b64(key)}"{_end(end)},"start_revision":"{start}"'
    return f'{{"create_request":{{{create}}}}}'.encode()


def _compare(each: Compare) -> str:
    end = f'"range_end":"{_b64(each.end)}",' if each.end else ""
    value = f'"{_COMPARED[each.what]}":"{each.to}"'
    return f'{{"key":"{_b64(each.key)}",{end}"target":"{each.what}","result":"{each.how}",{value}}}'


def _op(op: Op) -> str:
    if type(op) is Put:
        bound = ',"ignore_lease":true' if op.same_lease else f',"lease":"{op.lease}"'
        value = ',"ignore_value":true' if op.same_value else f',"value":"{_b64(op.value)}"'
        return f'{{"request_put":{{"key":"{_b64(op.key)}"{bound}{value}}}}}'
    if type(op) is Get:
        return f'{{"request_range":{_get(op)}}}'
    assert type(op) is Delete
    return f'{{"request_delete_range":{{"key":"{_b64(op.key)}"{_end(op.end)}}}}}'


def _get(op: Get) -> str:
    only = ',"keys_only":true' if op.keys_only else ""
    limit = f',"limit":"{op.limit}"' if op.limit else ""
    return f'{{"key":"{_b64(op.key)}"{_end(op.end)}{only}{limit}}}'


def _end(end: bytes) -> str:
    return f',"range_end":"{_b64(end)}"' if end else ""


# -- answers


def header(said: Mapping[str, Any]) -> Header:
    """The header of an answer: the member, its term and its revision."""
    of = said["header"]
    return Header(int(of["member_id"]), int(of["raft_term"]), int(of.get("revision", 0)))


def answers(said: Mapping[str, Any], asked: Sequence[Op]) -> list[Found | Done | Deleted]:
    """The answers to the ops of a transaction, one to each.

    Raises:
        ValueError: They are not.
    """
    told = said.get("responses", ())
    return [_answer(each, op) for each, op in zip(told, asked, strict=True)]


def _answer(each: Mapping[str, Any], op: Op) -> Found | Done | Deleted:
    if type(op) is Get:
        return found(each["response_range"], op)
    if type(op) is Delete:
        return Deleted(int(each["response_delete_range"].get("deleted", 0)))
    return _DONE


def found(said: Mapping[str, Any], asked: Get) -> Found:
    """The keys that a read found.

    Raises:
        ValueError: Some of it was not asked for.
    """
    kvs = [_kv(each) for each in said.get("kvs", ())]
    first, end = asked.key, asked.end or asked.key + b"\0"
    if kvs and not all(first <= kv.key < end for kv in kvs):
        raise ValueError("it has keys that were not asked for")
    return Found(kvs, bool(said.get("more")))


def changes(events: Sequence[Mapping[str, Any]]) -> list[Change]:
    """The changes in a message of a watch."""
    return [Change("DELETE" if each.get("type") == "DELETE" else "PUT", _kv(each["kv"])) for each in events]


def _kv(of: Mapping[str, Any]) -> Kv:
    get = of.get
    return Kv(
        a2b_base64(of["key"]),
        a2b_base64(get("value", "")),
        int(get("create_revision", 0)),
        int(get("mod_revision", 0)),
        int(get("lease", 0)),
    )


def txn_answer(told: Any, asked: Txn) -> TxnAnswer:
    """The answer to a transaction."""
    succeeded = bool(told.get("succeeded"))
    return TxnAnswer(header(told), succeeded, answers(told, asked.then if succeeded else asked.otherwise))


def range_answer(told: Any, asked: Get) -> tuple[Header, Found]:
    """The header and the keys of the answer to a read."""
    return header(told), found(told, asked)


def grant_answer(told: Any) -> Granted:
    """A new lease."""
    return Granted(header(told), int(told["TTL"]))


def remaining_answer(told: Any) -> Remaining:
    """How long a lease has."""
    return Remaining(int(told.get("TTL", 0)), int(told.get("grantedTTL", 0)))


def kept_answers(text: bytes, sent: float) -> dict[int, Kept]:
    """The answers to a body of keepalives, one a line; most say the same but for the lease.

    Read line by line, for thousands of documents at once would have the garbage collector look through the whole program.
    """
    kept: dict[int, Kept] = {}
    alike: dict[bytes, Kept] = {}
    for connection in text.split(b"\n"):
        match = _KEPT.fullmatch(connection)
        if match is None:
            if connection and not _keep_another(kept, connection, sent):
                break
            continue
        who, lease, ttl = match.group(1, 2, 3)
        facts = b"%b %b" % (who, ttl or b"0")
        one = alike.get(facts)
        if one is None:
            of = json.loads(who)
            one = alike[facts] = Kept(int(ttl or 0), int(of["member_id"]), int(of["raft_term"]), sent)
        kept[int(lease)] = one
    return kept


def _keep_another(kept: dict[int, Kept], connection: bytes, sent: float) -> bool:
    """An answer that is written in another way; False if it is none, or cut: then the others are not answered."""
    try:
        told = json.loads(connection)["result"]
        of = told["header"]
        lease, ttl = int(told["ID"]), int(told.get("TTL", 0))
        kept[lease] = Kept(ttl, int(of["member_id"]), int(of["raft_term"]), sent)
    except MEANINGLESS:
        return False
    return True


def status_answer(where: str, text: bytes) -> Status:
    """The status of a member."""
    told = json.loads(text)
    return Status(
        where,
        told.get("version", "unknown"),
        int(told["header"]["member_id"]),
        int(told.get("leader", 0)),
        int(told.get("raftTerm", 0)),
        int(told.get("dbSize", 0)),
        int(told.get("dbSizeInUse", 0)),
        tuple(told.get("errors", ())),
        bool(told.get("isLearner")),
    )
