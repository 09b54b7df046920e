"""Logins and TLS of a Redis server: the errors of a bad login or certificate."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time

import pytest

pytest.importorskip("redis")

import lockkit
from lockkit.cli.main import run
from lockkit.errors import BackendUnavailable, ConfigError, PermissionDenied
from lockkit.lib.bell import Bell
from lockkit.store.spi import OpenOptions
from lockkit.testing.claims import claim, take
from lockkit.testing.processes import PATIENCE, free_port
from lockkit.testing.troubles import SECRET, both_ways, trouble
from lockkit_redis.backend import open_store
from support.servers.certificates import Certificates
from support.servers.proxy import Proxy
from support.servers.redis import RedisServer
from support.servers.started import started

server = started(
    RedisServer,
    databases=4,
    repl_diskless_sync_delay=0,
    user=[f"one on >{SECRET} ~* &* +@all", f"off off >{SECRET}"],
)


guarded = started(RedisServer, requirepass=SECRET, login=("default", SECRET))


tls = started(RedisServer, tls=True)


# -- who may come in -----------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize(
    "login, says",
    [
        ({"user": "one", "password": f"x{SECRET}"}, "user name or password is wrong"),
        ({"user": "nobody", "password": SECRET}, "user name or password is wrong"),
        ({"user": "off", "password": SECRET}, "user name or password is wrong"),
        ({"password": SECRET}, "the server has none"),
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
        assert woken.wait(PATIENCE)
        store.release(waiting, 2.0)


def test_a_thread_that_waits_alone_hears_its_turn_over_tls(tls):
    with contextlib.closing(open_store(secure(tls), OpenOptions())) as store:
        for _ in range(3):
            one, _ = take(store)
            waiting, bell = claim(), Bell()
            blockers = store.acquire(waiting, True, 2.0).blockers
            reader = store.extras.listen("a", blockers, bell.ring, waiting)
            timer = threading.Timer(0.1, store.release, (one, 2.0))
            timer.start()
            assert reader.wait(bell, PATIENCE)
            reader.close()
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
    """Every time, though the server hangs up before the first request: its message is read all the same."""
    for _ in range(10):
        error = trouble(secure(tls, cert_file=None, key_file=None), way)

        assert isinstance(error, PermissionDenied)
        assert "the server requires a client certificate" in error.message
        assert "cert_file=" in error.hint


@both_ways
def test_a_client_certificate_that_the_server_does_not_trust_is_told(tls, way, tmp_path):
    other = Certificates(tmp_path)
    for _ in range(10):
        error = trouble(secure(tls, cert_file=other.client, key_file=other.client_key), way)

        assert isinstance(error, PermissionDenied)
        assert "does not accept the certificate in cert_file" in error.message


class Elsewhere(Proxy):
    """An address that is not in the certificate."""

    host = "127.0.0.2"


@both_ways
def test_another_name_than_the_certificates_is_told(tls, way):
    with Elsewhere((tls.host, tls.port)) as other:
        error = trouble(secure(tls).replace(tls.address, other.address), way)

    assert "127.0.0.2" in error.message
    assert "write the host name as in the server's certificate" in error.hint


# -- the files


@pytest.fixture(scope="module")
def files(tls, tmp_path_factory):
    """Files that are not what they should be."""
    folder = tmp_path_factory.mktemp("files")
    certificates = tls.certificates
    (folder / "text").write_text("nothing of the kind")
    (folder / "both").write_text(certificates.client.read_text() + certificates.client_key.read_text())
    (folder / "other").mkdir()
    (folder / "other.key").write_text(Certificates(folder / "other").client_key.read_text())
    command = [
        "openssl",
        "pkey",
        "-in",
        str(certificates.client_key),
        "-out",
        str(folder / "locked"),
        "-aes256",
    ]
    subprocess.run([*command, "-passout", f"pass:{SECRET}"], check=True, capture_output=True)
    locked = certificates.client.read_text() + (folder / "locked").read_text()
    (folder / "both-locked").write_text(locked)
    (folder / "unlike").write_text(certificates.client.read_text() + (folder / "other.key").read_text())
    return folder


@both_ways
@pytest.mark.parametrize(
    "stated, says",
    [
        ({"ca_file": "nowhere"}, "ca_file: cannot read {}/nowhere"),
        ({"ca_file": "other"}, "ca_file: cannot read {}/other"),
        ({"ca_file": "text"}, "ca_file: {}/text is not a certificate"),
        ({"ca_file": "locked"}, "ca_file: {}/locked is not a certificate"),
        ({"cert_file": "nowhere"}, "cert_file: cannot read {}/nowhere"),
        ({"cert_file": "text"}, "cert_file: {}/text is not a certificate"),
        (
            {"cert_file": "both-locked", "key_file": None},
            "cert_file: {}/both-locked has a key with a passphrase",
        ),
        (
            {"cert_file": "unlike", "key_file": None},
            "cert_file: {}/unlike contains a key that does not belong to the certificate",
        ),
        ({"key_file": "nowhere"}, "key_file: cannot read {}/nowhere"),
        ({"key_file": "text"}, "key_file: {}/text is not a key"),
        ({"key_file": "other.key"}, "key_file: {}/other.key is not the key of cert_file"),
        ({"key_file": "locked"}, "key_file: {}/locked has a key with a passphrase"),
        (
            {"cert_file": None, "key_file": "other.key"},
            "key_file: {}/other.key needs a certificate",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_no_use_is_a_mistake_in_the_configuration_that_names_it(tls, way, files, stated, says):
    found = {option: name and files / name for option, name in stated.items()}

    error = trouble(secure(tls, **found), way)

    assert isinstance(error, ConfigError)
    assert says.format(files) in error.message
    assert error.hint


def test_a_certificate_without_its_key_is_told(tls):
    error = trouble(secure(tls, key_file=None))

    assert isinstance(error, ConfigError)
    assert f"cert_file: {tls.certificates.client} contains no key" in error.message
    assert "key_file=" in error.hint


def test_certificate_and_key_may_be_in_one_file(tls, files):
    with contextlib.closing(open_store(secure(tls, cert_file=files / "both", key_file=None), OpenOptions())):
        pass


def test_config_check_finds_a_file_of_no_use_without_a_server(files, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCKKIT_URL", f"rediss://:{SECRET}@127.0.0.1:{free_port()}?ca_file={files}/text")

    assert run(["config", "check"]) != 0

    told = "".join(capsys.readouterr())
    assert f"ca_file: {files}/text is not a certificate" in told
    assert SECRET not in told
