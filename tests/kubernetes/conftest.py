"""Fixtures for a pod of Kubernetes: a container with a first process, signals, and a store for all pods."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import lockkit
from lockkit.testing.processes import ServerMissing
from support.programs import programs
from support.servers.redis import RedisServer


@pytest.fixture(scope="session")
def server():
    """The Redis that all pods reach."""
    pytest.importorskip("redis")
    try:
        server = RedisServer(appendonly="yes")
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture
def url(server, request):
    """A URL of a namespace for one test. On a busy machine the Redis client's import counts as a request."""
    return f"{server.url()}?namespace={abs(hash(request.node.nodeid))}&request_timeout=20s"


@pytest.fixture
def client(url):
    with lockkit.connect(url) as client:
        yield client


@pytest.fixture
def environ(tmp_path, url):
    """The environment of a container."""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("LOCKKIT_", "XDG_", "POD_"))
    }
    clean.pop("NODE_NAME", None)
    return clean | {
        "HOME": str(tmp_path),
        "LOCKKIT_CONFIG": "/dev/null",
        "LOCKKIT_URL": url,
        "LOCKKIT_SCOPE": "fleet",
    }


@pytest.fixture
def started(environ, tmp_path):
    """Start processes that are gone when the test is."""
    with programs(cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as start:
        yield lambda *words, env=None, **options: start(*words, env=environ | (env or {}), **options)


@pytest.fixture
def lockkit_line():
    """The words that start lockkit's command line."""
    return [sys.executable, "-m", "lockkit"]
