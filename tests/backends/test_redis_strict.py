"""Settings of a Redis server that are known to be unsafe are warned of, and refused if `strict` is set."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

import lockkit
from lockkit.cli.main import run
from support.servers.redis import RedisServer
from support.servers.started import started

evicting = started(RedisServer, maxmemory="100mb", maxmemory_policy="allkeys-lru")


def test_a_server_that_throws_keys_away_is_warned_of(evicting, caplog):
    with caplog.at_level(logging.WARNING), lockkit.connect(evicting.url()) as client:
        client.lock("a").acquire().release()
    assert "allkeys-lru" in caplog.text
    assert "noeviction" in caplog.text


def test_strict_refuses_it_and_holds_nothing(evicting):
    with (
        lockkit.connect(evicting.url(), strict=True) as client,
        pytest.raises(lockkit.BackendUnavailable, match="allkeys-lru") as raised,
    ):
        client.lock("b").acquire(timeout=1)
    assert "noeviction" in str(raised.value)
    assert not evicting.cli("EXISTS", "lockkit:default:{b}:q")


def test_doctor_calls_it_an_error(evicting):
    with lockkit.connect(evicting.url()) as client:
        found = {each.check: each for each in client.driver().backend.check(2.0)}
    assert found["memory"].severity == "error"
    assert "started" in found["persistence"].message


def test_doctor_tells_once_what_is_told_at_opening_too(evicting, capsys):
    run(["doctor", "--url", evicting.url()])

    out, err = capsys.readouterr()
    assert out.count("allkeys-lru") == 1
    assert out.count("append-only") == 1
    assert err == ""


def said(*words, url):
    """Return the stderr of a command in its own process: a log handler keeps the stderr it started with."""
    command = [sys.executable, "-m", "lockkit", *words[:2], "--url", url, *words[2:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    return done.stderr


@pytest.mark.parametrize(
    "words", [["status"], ["status", "a"], ["explain", "a"], ["wait", "a"]], ids=" ".join
)
def test_a_command_that_only_looks_is_not_warned(evicting, words):
    assert said(*words, url=evicting.url()) == ""


def test_a_command_that_takes_a_lock_is_warned(evicting):
    assert said("run", "a", "--", "true", url=evicting.url()).count("allkeys-lru") == 1


def test_strict_takes_a_server_of_which_nothing_bad_is_known():
    with RedisServer() as server, lockkit.connect(server.url(), strict=True) as client:
        assert client.lock("a").acquire().release().outcome == "RELEASED"
    observer = "looker on >secret ~* &* +@all -info"
    with (
        RedisServer(user=observer, maxmemory="100mb", maxmemory_policy="allkeys-lru") as server,
        lockkit.connect(server.url(user="looker", password="secret"), strict=True) as client,
    ):
        assert client.lock("a").acquire().release().outcome == "RELEASED", (
            "INFO is forbidden: unknown, not bad"
        )


def test_a_server_that_may_just_have_forgotten_locks_is_warned_of_and_not_refused(caplog):
    caplog.set_level(logging.WARNING)
    with RedisServer() as server, lockkit.connect(server.url(), strict=True) as client:
        client.lock("a").acquire().release()
    assert "a restart forgets locks (it was started" in caplog.text
    assert "renewal" in caplog.text


def test_a_server_that_keeps_a_log_is_not_warned_of(caplog):
    caplog.set_level(logging.WARNING)
    with RedisServer(appendonly="yes") as server, lockkit.connect(server.url()) as client:
        client.lock("a").acquire().release()
    assert not caplog.text
