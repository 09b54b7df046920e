"""Drains of a Redis that does not answer, or whose user may not do all that a drain needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lockkit
from lockkit.errors import BackendError
from support.servers.redis import RedisServer

SCAN = "locker on >secret ~* &* +@all -scan"


def test_a_drain_whose_outcome_is_unknown_says_that_the_namespace_may_be_drained_and_how_that_ends():
    with (
        RedisServer() as server,
        lockkit.connect(server.url(), namespace="prod", request_timeout=0.5) as client,
    ):
        assert client.drained() is None
        server.pause()
        with pytest.raises(BackendError) as caught:
            client.drain("kernel")
        server.resume()
        assert "namespace 'prod' may be drained now" in caught.value.hint
        assert "lockkit undrain --url redis://" in caught.value.hint


def test_a_wait_of_who_may_not_scan_is_refused_before_anything_is_drained():
    with RedisServer(user=[SCAN]) as server:
        url = server.url(user="locker", password="secret")
        drain = [sys.executable, "-m", "lockkit", "drain", "--url", url]
        with lockkit.connect(url) as client, client.lock("job").acquire():
            done = subprocess.run(
                [*drain, "--wait"], capture_output=True, text=True, timeout=100, check=False
            )
            assert done.returncode == 69
            assert "--wait has to see all names; nothing was drained" in done.stderr
            assert client.drained() is None
            subprocess.run(drain, timeout=100, check=True)
            assert client.drained() is not None
