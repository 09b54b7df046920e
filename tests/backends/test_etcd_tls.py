"""etcd over TLS, with an authority made for the test: whom it trusts, and what is told of what is wrong."""

from __future__ import annotations

import contextlib
import time

import pytest

import lockkit
from lockkit.errors import BackendUnavailable, ConfigError
from lockkit.store.spi import OpenOptions
from lockkit.testing.claims import BUDGET, queue, take
from lockkit.testing.processes import installed
from lockkit.testing.stage import Work
from lockkit.testing.troubles import both_ways, trouble
from lockkit_etcd.backend import open_store
from support.servers.certificates import Certificates
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import EtcdUser
from support.servers.proxy import Proxy
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")


server = started(EtcdServer, tls=True)


@pytest.fixture(scope="module")
def strict():
    users = [EtcdUser("locker", "secret", {"lockkit/default/": "READWRITE"})]
    with EtcdServer(tls=True, client_certificates=True, users=users) as server:
        yield server


def test_a_private_authority_is_trusted_by_its_file(server):
    url = f"{server.url()}?ca_file={server.certificates.ca}"
    with lockkit.connect(url) as client, lockkit.connect(url) as other:
        lease = client.lock("a", ttl=20).acquire()
        lease.confirm()
        work = Work(lambda: other.lock("a").acquire(10.0))
        lease.release()
        work.result().release()
        assert client.names() == []


def test_watches_go_over_tls_and_their_threads_end(server):
    url = f"{server.url()}?ca_file={server.certificates.ca}"
    with contextlib.closing(open_store(url, OpenOptions())) as store:
        holder, _ = take(store)
        waiter = queue(store)
        bell = Work(lambda: None)
        watch = store.watch("a", (), lambda: None, waiter)
        watch.close()
        bell.result()
        store.release(holder, BUDGET)
        store.abandon(waiter, BUDGET)


def test_a_batch_of_keepalives_goes_over_tls(server):
    url = f"{server.url()}?ca_file={server.certificates.ca}"
    with contextlib.closing(open_store(url, OpenOptions())) as store:
        held = [take(store, f"lock-{at}") for at in range(40)]
        assert {each.state for each in store.renew(held, 5.0)} == {"HELD"}
        for one, _ in held:
            store.release(one, BUDGET)


@both_ways
def test_an_unknown_authority_is_told(server, way):
    error = trouble(server.url(), way)
    assert isinstance(error, BackendUnavailable)
    assert "certificate verify failed" in str(error)
    assert "?ca_file=" in error.hint


def test_who_waits_for_a_lock_is_told_at_once_that_the_certificate_is_not_trusted(server):
    began = time.monotonic()
    with lockkit.connect(server.url()) as client, pytest.raises(BackendUnavailable, match="ca_file"):
        client.lock("a").acquire(timeout=20)
    assert time.monotonic() - began < 5


class Elsewhere(Proxy):
    """An address that is not in the certificate."""

    host = "127.0.0.2"


@both_ways
def test_another_name_than_the_certificates_is_told(server, way):
    with Elsewhere((server.host, server.port)) as other:
        error = trouble(f"etcds://{other.address}?ca_file={server.certificates.ca}", way)
    assert isinstance(error, BackendUnavailable)
    assert "host name as in the server's certificate" in error.hint


@both_ways
def test_plain_text_to_a_server_with_tls_is_told(server, way):
    error = trouble(f"etcd://{server.address}", way)
    assert isinstance(error, (BackendUnavailable, lockkit.OutcomeUnknown))
    assert "etcds://" in error.hint


@both_ways
def test_tls_to_a_server_without_is_told(way):
    with EtcdServer() as plain:
        assert isinstance(trouble(f"etcds://{plain.address}", way), BackendUnavailable)


def test_a_clients_certificate_and_a_password_together(strict):
    files = strict.certificates
    url = (
        f"{strict.url('locker', 'secret')}?ca_file={files.ca}"
        f"&cert_file={files.nameless}&key_file={files.nameless_key}"
    )
    with lockkit.connect(url) as client:
        with client.lock("a", ttl=20).acquire() as lease:
            lease.confirm()
        assert "secret" not in repr(client)


@both_ways
def test_a_missing_client_certificate_is_told(strict, way):
    error = trouble(f"{strict.url('locker', 'secret')}?ca_file={strict.certificates.ca}", way)
    assert isinstance(error, BackendUnavailable)


@both_ways
def test_a_client_certificate_of_another_authority_is_told(strict, tmp_path, way):
    other = Certificates(tmp_path)
    files = f"ca_file={strict.certificates.ca}&cert_file={other.nameless}&key_file={other.nameless_key}"

    error = trouble(f"{strict.url('locker', 'secret')}?{files}", way)

    assert "the client's certificate" in error.message
    assert "--trusted-ca-file" in error.hint


def test_a_file_that_is_no_certificate_is_told(server, tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="PEM"):
        open_store(f"{server.url()}?ca_file={tmp_path}/ca.pem", OpenOptions())


def test_an_authority_of_another_server_is_not_trusted(server, tmp_path):
    (tmp_path / "other").mkdir()
    other = Certificates(tmp_path / "other")
    error = trouble(f"{server.url()}?ca_file={other.ca}")
    assert "certificate verify failed" in str(error)
