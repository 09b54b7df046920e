"""Requests and answers as the JSON gateway writes them.

Keys and values are in base64, 64-bit numbers are strings, and a field that is zero, false or empty is left out.
"""

from __future__ import annotations

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
    Header,
    Kv,
    Op,
    Put,
    Txn,
)

__all__ = ["answers", "changes", "found", "header", "range_body", "txn_body", "watch_body"]

_COMPARED = {"CREATE": "create_revision", "MOD": "mod_revision", "VERSION": "version"}
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
    """Who answered."""
    of = said["header"]
    return Header(int(of["member_id"]), int(of["raft_term"]), int(of.get("revision", 0)))


def answers(said: Mapping[str, Any]) -> list[Found | Done | Deleted]:
    """What the ops of a transaction answered."""
    return [_answer(each) for each in said.get("responses", ())]


def _answer(each: Mapping[str, Any]) -> Found | Done | Deleted:
    if "response_range" in each:
        return found(each["response_range"])
    if "response_delete_range" in each:
        return Deleted(int(each["response_delete_range"].get("deleted", 0)))
    return _DONE


def found(said: Mapping[str, Any]) -> Found:
    """What a read found."""
    return Found([_kv(each) for each in said.get("kvs", ())], bool(said.get("more")))


def changes(events: Sequence[Mapping[str, Any]]) -> list[Change]:
    """What happened, as a watch tells it."""
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
