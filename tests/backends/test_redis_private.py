"""The private names of redis-py and hiredis that lockkit uses: a version that changes one fails here."""

from __future__ import annotations

import pytest

pytest.importorskip("redis")

import hiredis
import redis.exceptions as theirs

from lockkit_redis import private


def test_the_slot_of_a_key_is_that_of_the_specification():
    """Redis Cluster specification: CRC16 of 123456789 is 31C3; only what is in braces counts."""
    assert private.slot_of(b"123456789") == 0x31C3
    assert private.slot_of(b"a{123456789}b") == 0x31C3


def test_the_class_of_an_error_reply_is_known():
    parse = private.error_of
    for reply, kind in (
        ("NOSCRIPT No matching script", theirs.NoScriptError),
        ("READONLY You can't write", theirs.ReadOnlyError),
        ("LOADING Redis is loading", theirs.BusyLoadingError),
        ("WRONGPASS invalid", theirs.AuthenticationError),
        ("NOPERM no permissions", theirs.NoPermissionError),
        ("CLUSTERDOWN down", theirs.ClusterDownError),
        ("MASTERDOWN down", theirs.MasterDownError),
        ("EXECABORT aborted", theirs.ExecAbortError),
    ):
        assert isinstance(parse(reply), kind), reply
    moved = parse("MOVED 3999 127.0.0.1:6381")
    assert (type(moved), moved.slot_id, moved.host, moved.port) == (
        theirs.MovedError,
        3999,
        "127.0.0.1",
        6381,
    )


def test_the_parser_hands_out_what_is_missing_and_what_is_wrong():
    more = object()
    reader = hiredis.Reader(
        protocolError=theirs.InvalidResponse, replyError=theirs.ResponseError, notEnoughData=more
    )
    assert reader.gets() is more
    reader.feed(b"-ERR no\r\n:1\r\n")
    assert isinstance(reader.gets(), theirs.ResponseError)
    assert reader.gets() == 1
