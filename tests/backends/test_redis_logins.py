"""Who may come in to a Redis server, and how encrypted: what a bad login or certificate is told."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

pytest.importorskip("redis")

import lockkit
from lockkit.bell import Bell
from lockkit.errors import BackendUnavailable, PermissionDenied
from lockkit.spi import OpenOptions
from lockkit.testing.claims import claim, take
from lockkit.testing.servers.certificates import Certificates
from lockkit.testing.servers.redis import RedisServer
from lockkit.testing.troubles import SECRET, both_ways, trouble
from lockkit_redis.backend import open_store


@pytest.fixture(scope="module")
def server():
    with RedisServer(
        databases=4, repl_diskless_sync_delay=0, user=[f"one on >{SECRET} ~* &* +@all", f"off off >{SECRET}"]
    ) as server:
        yield server


@pytest.fixture(scope="module")
def guarded():
    with RedisServer(requirepass=SECRET, login=("default", SECRET)) as server:
        yield server


@pytest.fixture(scope="module")
def tls():
    with RedisServer(tls=True) as server:
        yield server


# -- who may come in -----------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize(
    "login, says",
    [
        ({"user": "one", "password": f"x{SECRET}"}, "user name or password is wrong"),
        ({"user": "nobody", "password": SECRET}, "user name or password is wrong"),
        ({"user": "off", "password": SECRET}, "user name or password is wrong"),
        ({"password": SECRET}, "it has none"),
    ],
    ids=["wrong password", "unknown user", "user that is off", "needless password"],
)
def test_a_bad_login_is_told(server, way, login, says, nothing_held):
    error = trouble(server.url(**login), way)

    assert isinstance(error, PermissionDenied)
    assert says in str(error)
    assert nothing_held(server)


@both_ways
def test_a_missing_password_is_told_as_missing(guarded, way):
    error = trouble(guarded.url(), way)

    assert isinstance(error, PermissionDenied)
    assert "it wants a password" in str(error)
    with contextlib.closing(open_store(guarded.url(password=SECRET), OpenOptions())) as store:
        assert SECRET not in repr(store)
        store.release(take(store)[0], 2.0)


@both_ways
def test_a_database_that_does_not_exist_is_told(server, way, nothing_held):
    assert "no such database" in str(trouble(server.url(db=4), way))
    assert nothing_held(server)


# -- encryption ----------------------------------------------------------------------------------------------


def secure(tls, **options):
    files = {
        "ca_file": tls.certificates.ca,
        "cert_file": tls.certificates.client,
        "key_file": tls.certificates.client_key,
    }
    chosen = {key: value for key, value in (files | options).items() if value is not None}
    return tls.url() + "?" + "&".join(f"{key}={value}" for key, value in chosen.items())


def test_with_its_certificates_a_lock_can_be_had_over_tls(tls):
    with contextlib.closing(open_store(secure(tls), OpenOptions())) as store:
        one, _ = take(store)
        waiting = claim()
        woken = threading.Event()
        store.watch("a", store.acquire(waiting, True, 2.0).blockers, woken.set, waiting)
        store.release(one, 2.0)
        assert woken.wait(1.0)
        store.release(waiting, 2.0)


def test_a_thread_that_waits_alone_hears_its_turn_over_tls(tls):
    with contextlib.closing(open_store(secure(tls), OpenOptions())) as store:
        for _ in range(3):
            one, _ = take(store)
            waiting, bell = claim(), Bell()
            blockers = store.acquire(waiting, True, 2.0).blockers
            ear = store.listen("a", blockers, bell.ring, waiting)
            timer = threading.Timer(0.1, store.release, (one, 2.0))
            timer.start()
            assert ear.wait(bell, 1.5)
            ear.close()
            timer.join()
            store.release(waiting, 2.0)


@both_ways
def test_an_unencrypted_url_to_an_encrypted_port_is_told(tls, way):
    assert "TLS" in str(trouble(f"redis://:{SECRET}@{tls.address}/0", way))


@both_ways
def test_an_encrypted_url_to_an_unencrypted_port_is_told(server, way):
    assert "TLS" in str(trouble(f"rediss://:{SECRET}@{server.address}/0", way))


@both_ways
@pytest.mark.parametrize("other", [True, False], ids=["another authority", "none"])
def test_a_certificate_that_is_not_trusted_is_told(tls, way, other, tmp_path, nothing_held):
    ca = Certificates(tmp_path).ca if other else None

    error = trouble(secure(tls, ca_file=ca), way)
    assert "certificate verify failed" in error.message
    assert "?ca_file=" in error.hint
    assert "cert_file" not in error.hint
    assert nothing_held(tls)


def test_who_waits_for_a_lock_is_told_at_once_that_the_certificate_is_not_trusted(tls):
    began = time.monotonic()
    with lockkit.connect(tls.url()) as client, pytest.raises(BackendUnavailable, match="ca_file"):
        client.lock("a").acquire(timeout=20)
    assert time.monotonic() - began < 5


@both_ways
def test_a_missing_client_certificate_is_told(tls, way):
    assert "certificate" in str(trouble(secure(tls, cert_file=None, key_file=None), way)).lower()
