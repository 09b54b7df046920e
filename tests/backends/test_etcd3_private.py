"""The private names of python-etcd3 and gRPC that lockkit uses: a version that changes one fails here."""

from __future__ import annotations

import importlib
import importlib.util

import pytest

if importlib.util.find_spec("etcd3") is None:
    pytest.skip("python-etcd3 is not installed", allow_module_level=True)

from lockkit.testing.processes import until
from lockkit_etcd3 import library, private


@pytest.fixture(scope="module")
def loaded():
    return library.load()


def test_the_generated_code_has_the_messages_and_stubs(loaded):
    assert private.missing(importlib.import_module(private.STUBS)) == ""
    channel = loaded.grpc.insecure_channel("localhost:1")
    kv, lease = loaded.stubs.KVStub(channel), loaded.stubs.LeaseStub(channel)
    for call in (
        kv.Txn,
        kv.Range,
        lease.LeaseGrant,
        lease.LeaseRevoke,
        lease.LeaseKeepAlive,
        lease.LeaseTimeToLive,
    ):
        assert callable(call)
    channel.close()


def test_a_client_gives_its_channel_away(loaded):
    client = loaded.client(host="localhost", port=1, grpc_options=[("grpc.enable_retries", 0)])
    assert isinstance(private.channel(client), loaded.grpc.Channel)
    client.close()


def test_a_code_of_grpc_has_its_number(loaded):
    assert loaded.grpc.StatusCode.UNAVAILABLE.value[0] == 14


def test_the_threads_of_grpc_are_told_by_their_names(loaded):
    """All of them end with the last channel: else every fork would wait in vain."""
    until(lambda: private.threads() == 0, "no other test has a channel open")
    channel = loaded.grpc.insecure_channel("localhost:1")
    until(lambda: private.threads() > 0, "its threads are seen")
    channel.close()
    until(lambda: private.threads() == 0, "its threads have ended")


def test_open_channels_are_counted(loaded):
    before = private.open_channels()
    channel = loaded.grpc.insecure_channel("localhost:1")
    assert private.open_channels() == before + 1
    channel.close()
    assert private.open_channels() == before
