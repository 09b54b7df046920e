"""Logins on ZooKeeper: digest, SASL, TLS; the calls that each set of rights permits, and the errors."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys

import pytest

pytest.importorskip("kazoo")

from kazoo.exceptions import NoNodeError
from kazoo.security import make_acl, make_digest_acl, make_digest_acl_credential

from lockkit.errors import BackendUnavailable, ConfigError, PermissionDenied
from lockkit.store.spi import BackendSpec, OpenOptions, Unknown
from lockkit.sync.client import connect
from lockkit.testing.claims import BUDGET, take
from lockkit.testing.processes import until
from lockkit.testing.troubles import SECRET, both_ways, through_a_client, trouble
from lockkit_zookeeper.address import parse
from lockkit_zookeeper.backend import open_store
from support.servers.certificates import Certificates
from support.servers.proxy import Proxy
from support.servers.started import started
from support.servers.zookeeper import ZooKeeperServer

TICK = 0.15
LOCKER, OBSERVER = ("locker", SECRET), ("watcher", "binoculars")


def is_empty(admin, parent):
    """Whether a queue has no node; the server may take an empty one away at any moment."""
    try:
        return not admin.get_children(parent)
    except NoNodeError:
        return True


server = started(ZooKeeperServer, tick=TICK)


@pytest.fixture
def fenced(server, request):
    """A chroot as in docs/ops/zookeeper-acl.md: the locker may make nodes there, the observer may look."""
    chroot = f"/{request.node.name}"
    with server.connect() as client:
        acl = [make_digest_acl(*LOCKER, create=True), make_digest_acl(*OBSERVER, read=True)]
        client.create(chroot, acl=acl)
    return chroot


def url(server, chroot, user=None, password=None, **options):
    hashed = make_digest_acl_credential(*OBSERVER).replace("+", "%2B")
    words = {"tick": TICK, "max_ttl": 30, **options}
    if user == LOCKER[0]:
        words["observer"] = hashed
    query = "&".join(f"{key}={value}" for key, value in words.items())
    return f"{server.url(chroot, user=user, password=password)}?{query}"


def acls(client, path):
    found = {path: client.get_acls(path)[0]}
    for child in client.get_children(path):
        with contextlib.suppress(NoNodeError):
            found |= acls(client, f"{path}/{child}")
    return found


def test_everything_works_with_the_least_rights(server, fenced):
    with connect(url(server, fenced, *LOCKER)) as client, connect(url(server, fenced, *LOCKER)) as other:
        lease = client.semaphore("a", 2, ttl=2.4).acquire(2.0)
        waiting = other.semaphore("a", 2, ttl=2.4).acquire(2.0)
        assert other.semaphore("a", 2, ttl=2.4).try_acquire() is None
        assert client.annotate("a", lease.claim_id, {"x": 1})
        assert client.put_record("a", {"y": 2}, 0).version == 1
        assert client.resize("a", 3) == 2
        assert other.evict("a", lease.claim_id, reason="test").outcome == "MARKED"
        assert lease.lost.wait(2.4)
        waiting.release()
        assert {found.severity for found in client.check()} <= {"ok", "warning"}
        with client.lock("b", ttl=2.4), server.connect() as look:
            for path, acl in acls(look, f"{fenced}/lockkit").items():
                who = {(each.id.scheme, each.id.id.partition(":")[0], each.perms) for each in acl}
                assert who == {("digest", "locker", 31), ("digest", "watcher", 1)}, path


def test_an_observer_may_look_and_nothing_else(server, fenced):
    with connect(url(server, fenced, *LOCKER)) as client, connect(url(server, fenced, *OBSERVER)) as observer:
        lease = client.lock("a", ttl=2.4).acquire(2.0)
        seats = client.semaphore("s", 2, ttl=2.4).acquire(2.0)
        client.put_record("a", {"y": 2}, 0)
        assert [claim.claim_id for claim in observer.inspect("a").holders] == [lease.claim_id]
        assert observer.names() == ["a", "s"]
        assert observer.record("a").value == {"y": 2}
        for what in (
            observer.lock("new", ttl=2.4).try_acquire,
            lambda: observer.lock("new", ttl=2.4).acquire(2.0),
            lambda: observer.evict("a", lease.claim_id, reason="test", now=True),
            lambda: observer.resize("s", 3),
            lambda: observer.annotate("a", lease.claim_id, {"x": 1}),
            lambda: observer.put_record("b", {}, 0),
        ):
            with pytest.raises(PermissionDenied, match=r"may not do this"):
                what()
        (rights,) = [found for found in observer.check() if found.check == "rights"]
        assert rights.severity == "error"
        assert lease.valid()
        assert seats.valid()
        lease.confirm()


@both_ways
def test_who_has_no_rights_is_told_at_once(server, fenced, way):
    error = trouble(url(server, fenced, "stranger", SECRET), way)

    assert isinstance(error, PermissionDenied)


def test_a_strangers_queue_hides_no_other(server, request, tmp_path):
    there = f"/{request.node.name}"
    with connect(url(server, there)) as anybody, connect(url(server, there, "bob", SECRET)) as bob:
        mine, _bobs = (
            anybody.lock("a", ttl=2.4).acquire(2.0),
            bob.lock("bobs", ttl=2.4).acquire(2.0),
        )
        assert anybody.names() == ["a", "bobs"]
        assert anybody.names("b") == ["bobs"]
        with pytest.raises(PermissionDenied, match="/q/bobs"):
            anybody.inspect("bobs")

        status = [sys.executable, "-m", "lockkit", "status", "--url", url(server, there)]
        env = os.environ | {"LOCKKIT_STATE_DIR": str(tmp_path)}
        told = subprocess.run(status, env=env, capture_output=True, text=True, check=True).stdout
        document = subprocess.run([*status, "--json"], env=env, capture_output=True, check=True).stdout

        assert mine.claim_id in told
        assert "'bobs' cannot be read" in told
        (unread,) = json.loads(document)["unread"]
        assert (unread["name"], unread["error"]) == ("bobs", "PermissionDenied")


@both_ways
def test_who_may_have_a_wrong_password_is_told_so(server, fenced, way):
    error = trouble(url(server, fenced, LOCKER[0], SECRET + "2"), way)

    assert isinstance(error, PermissionDenied)
    assert "a wrong password is not refused" in error.hint


def test_who_has_no_login_is_not_told_of_a_password(server, fenced):
    assert "password" not in trouble(url(server, fenced)).hint


@both_ways
def test_a_login_by_sasl_on_servers_without_it_is_told(server, way):
    pytest.importorskip("puresasl")
    error = trouble(url(server, "/app", *LOCKER, auth="sasl"), way)

    assert isinstance(error, PermissionDenied)
    assert "does not support SASL" in str(error)


def test_a_node_that_cannot_be_deleted_is_tried_again_and_told_of(server, fenced, caplog):
    """S11 has this one exception: somebody takes the right away while the session lives."""
    parent = f"{fenced}/lockkit/default/q/a"
    with connect(url(server, fenced, *LOCKER)) as client, server.connect() as admin:
        lease = client.lock("a", ttl=2.4, auto_renew=False).acquire(2.0)
        acl, _ = admin.get_acls(parent)
        admin.set_acls(parent, [make_digest_acl(*LOCKER, read=True, create=True)])
        until(lambda: "cannot be removed" in caplog.text, "it is told of", 30.0)
        assert not lease.valid()
        assert len(admin.get_children(parent)) == 1
        assert lease.token not in caplog.text
        admin.set_acls(parent, acl)
        until(lambda: is_empty(admin, parent), "it is removed", 5.0)


def test_what_may_not_be_released_is_removed_once_it_may_without_being_asked_again(server, fenced):
    parent = f"{fenced}/lockkit/default/q/a"
    with (
        contextlib.closing(open_store(url(server, fenced, *LOCKER), OpenOptions())) as store,
        server.connect() as admin,
    ):
        one, _ = take(store, ttl=9.0)
        acl, _ = admin.get_acls(parent)
        admin.set_acls(parent, [make_digest_acl(*LOCKER, read=True, create=True)])
        with pytest.raises(Unknown):
            store.release(one, BUDGET)
        assert len(admin.get_children(parent)) == 1
        admin.set_acls(parent, acl)
        until(lambda: is_empty(admin, parent), "it is removed", 5.0)


def test_no_password_is_shown_anywhere(server, fenced, caplog):
    caplog.set_level("DEBUG")
    with connect(url(server, fenced, *LOCKER)) as client:
        client.lock("a", ttl=2.4).acquire(2.0).release()
        shown = f"{client!r} {client.driver().backend!r} {client.driver().backend.address!r} {client.url}"
    assert SECRET not in shown
    assert SECRET not in caplog.text


@pytest.fixture(scope="module")
def sasl():
    pytest.importorskip("puresasl")
    with ZooKeeperServer(tick=TICK, users=dict([LOCKER])) as server:
        with server.connect() as client:
            client.create("/app", acl=[make_acl("sasl", "locker", create=True)])
        yield server


def test_a_login_by_sasl(sasl):
    with connect(url(sasl, "/app", *LOCKER, auth="sasl")) as client:
        client.lock("a", ttl=2.4).acquire(2.0).release()
    assert isinstance(trouble(url(sasl, "/app")), PermissionDenied)


@both_ways
def test_a_wrong_password_is_told_at_once(sasl, way):
    error = trouble(url(sasl, "/app", "locker", SECRET + "2", auth="sasl"), way)

    assert isinstance(error, PermissionDenied)
    assert "login is refused" in str(error)


tls = started(ZooKeeperServer, tick=TICK, tls=True, client_certificates=True)


def test_tls_with_a_private_authority_and_a_certificate_of_ones_own(tls):
    mine = tls.certificates
    files = {"ca_file": mine.ca, "cert_file": mine.client, "key_file": mine.client_key}
    with connect(url(tls, "/app", **files)) as client:
        with client.lock("a", ttl=2.4).acquire(2.0) as lease:
            assert lease.valid()
        assert {found.severity for found in client.check()} <= {"ok", "warning"}


@both_ways
def test_who_does_not_know_the_authority_is_told(tls, way):
    error = at_once(url(tls, "/app"), way)

    assert isinstance(error, BackendUnavailable)
    assert "certificate verify failed" in str(error)
    assert "?ca_file=" in error.hint


def at_once(url, way):
    """The error that a user of this URL is told, although there would be a minute to try again."""

    def patiently(url):
        if way is not through_a_client:
            open_store(url, OpenOptions(budget=60.0)).close()
        with connect(url) as client:
            client.lock("a").acquire(timeout=60)

    return trouble(url, patiently)


@both_ways
def test_another_authority_is_told(tls, way, tmp_path):
    mine, other = tls.certificates, Certificates(tmp_path)
    files = {"cert_file": mine.client, "key_file": mine.client_key}
    error = at_once(url(tls, "/app", ca_file=other.ca, **files), way)
    assert isinstance(error, BackendUnavailable)
    assert "names an authority that has not signed" in error.hint


@both_ways
def test_another_name_than_the_certificates_is_told(tls, way):
    mine = tls.certificates
    files = {"ca_file": mine.ca, "cert_file": mine.client, "key_file": mine.client_key}
    with Elsewhere((tls.host, tls.port)) as other:
        error = at_once(url(tls, "/app", **files).replace(tls.address, other.address), way)
    assert isinstance(error, BackendUnavailable)
    assert "write the host name as in the server's certificate" in error.hint


class Elsewhere(Proxy):
    """An address that is not in the certificate."""

    host = "127.0.0.2"


@both_ways
def test_a_missing_client_certificate_is_told(tls, way):
    error = at_once(url(tls, "/app", ca_file=tls.certificates.ca), way)
    assert isinstance(error, PermissionDenied)
    assert "cert_file=" in error.hint


@both_ways
def test_a_client_certificate_of_another_authority_is_told(tls, way, tmp_path):
    other = Certificates(tmp_path)
    files = {"cert_file": other.client, "key_file": other.client_key}
    error = at_once(url(tls, "/app", ca_file=tls.certificates.ca, **files), way)
    assert isinstance(error, PermissionDenied)
    assert "does not accept the certificate" in str(error)


@pytest.mark.parametrize(
    "files, told",
    [
        ({"ca_file": "server_key"}, "ca_file: .* is not a certificate"),
        ({"cert_file": "client_key"}, "cert_file: .* is not a certificate"),
        ({"cert_file": "client"}, "cert_file: .* contains no key"),
        ({"cert_file": "client", "key_file": "server_key"}, "key_file: .* is not the key of cert_file"),
        ({"cert_file": "client", "key_file": "ca"}, "key_file: .* is not a key"),
        ({"key_file": "client_key"}, "key_file: .* needs a certificate"),
    ],
)
def test_a_file_that_is_of_no_use_is_told_before_anything_is_asked(tls, files, told):
    files = {option: getattr(tls.certificates, file) for option, file in files.items()}
    with pytest.raises(ConfigError, match=told):
        parse(url(tls, "/app", **files))


@both_ways
def test_as_long_as_one_of_several_servers_may_come_it_is_tried_again(tls, way):
    closed = socket.create_server(("127.0.0.1", 0))
    other = f"127.0.0.1:{closed.getsockname()[1]}"
    closed.close()
    error = trouble(url(tls, "/app").replace(tls.address, f"{tls.address},{other}"), way)
    assert "cannot reach" in str(error)


def test_files_without_tls_and_files_that_are_not_there_are_told(tls):
    with pytest.raises(ConfigError, match="needs TLS"):
        connect(f"zookeeper://localhost/app?ca_file={tls.certificates.ca}")
    with pytest.raises(ConfigError, match="cannot read"):
        connect("zookeepers://localhost/app?ca_file=/nowhere")


def test_a_user_that_may_not_create_the_chroot_is_told_which(server, request):
    with server.connect() as client:
        client.create(f"/{request.node.name}", acl=[make_digest_acl("else", "where", all=True)])

    error = trouble(url(server, f"/{request.node.name}", *LOCKER))

    assert isinstance(error, PermissionDenied)
    assert f"/{request.node.name}" in str(error)


def test_it_is_declared_as_it_is():
    from lockkit_zookeeper import lockkit_backends

    (spec,) = lockkit_backends()
    assert isinstance(spec, BackendSpec)
    assert spec.declared is not None
    assert spec.declared("zookeeper://localhost") == spec.capabilities
    assert BUDGET > 0
