"""The server on stores that others run, with its pages' exact rights: observers look, lockers act."""

from __future__ import annotations

import re
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

import lockkit
from lockkit.lib.namedtuples import NamedTuple
from lockkit.server import make_app
from lockkit.testing.processes import installed, until

from .conftest import Site
from .test_acts import records
from .test_events import Stream

OPS = Path(__file__).parents[2] / "docs/ops"


class Logins(NamedTuple):
    """The URLs of one store for the user that takes locks, and for the one that only looks."""

    locker: str
    watcher: str


@contextmanager
def redis():
    """A Redis with the users of the page, and no other one that may do anything."""
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server")
    from support.servers.redis import RedisServer

    lines = re.findall(r"^user (locker .*|watcher .*)$", (OPS / "redis-acl.md").read_text(), re.MULTILINE)
    assert len(lines) == 2
    users = [*lines, "admin on >admin ~* &* +@all", "default off"]
    with RedisServer(user=users, login=("admin", "admin")) as server:
        yield Logins(*(server.url(user=name, password="secret") for name in ("locker", "watcher")))


@contextmanager
def etcd():
    """An etcd with the roles of the page."""
    if not installed("etcd"):
        pytest.skip("there is no etcd")
    from support.servers.etcd import EtcdServer
    from support.servers.etcd_gateway import EtcdUser

    granted = re.findall(
        r"grant-permission (locker|watcher) --prefix=true (\w+) (\S+)$",
        (OPS / "etcd-role.md").read_text(),
        re.MULTILINE,
    )
    assert [name for name, _, _ in granted] == ["locker", "watcher"]
    users = [EtcdUser(name, "secret", {prefix: right.upper()}) for name, right, prefix in granted]
    with EtcdServer(users=users) as server:
        yield Logins(*(server.url(name, "secret") for name in ("locker", "watcher")))


@contextmanager
def zookeeper():
    """A ZooKeeper with the chroot of the page."""
    pytest.importorskip("kazoo")
    from support.servers.zookeeper_program import zookeeper_installed

    if not zookeeper_installed():
        pytest.skip("there is no ZooKeeper")
    from kazoo.security import ACL, Id

    from support.servers.zookeeper import ZooKeeperServer

    page = (OPS / "zookeeper-acl.md").read_text()
    acl = re.search(r"^setAcl /app (digest\S+)$", page, re.MULTILINE)[1].split(",")
    locker, watcher = re.findall(r"^zookeeper://(\S+?)@zk1\S+?/app(\S*)$", page, re.MULTILINE)
    permissions = {"r": 1, "w": 2, "c": 4, "d": 8, "a": 16}
    with ZooKeeperServer(tick=0.5) as server:
        with server.connect() as admin:
            made = []
            for one in acl:
                scheme, name, rest = one.split(":", 2)
                hashed, _, rights = rest.rpartition(":")
                made.append(ACL(sum(permissions[each] for each in rights), Id(scheme, f"{name}:{hashed}")))
            admin.create("/app", acl=made)
        plain = server.url("/app")
        yield Logins(
            *(
                f"{plain.replace('://', f'://{login}@')}{options}{'&' if options else '?'}tick=0.5"
                for login, options in (locker, watcher)
            )
        )


@pytest.fixture(scope="module", params=[redis, etcd, zookeeper], ids=lambda one: one.__name__)
def logins(request):
    with request.param() as found:
        yield found


@pytest.fixture
def client(logins, tmp_path):
    """A client that may take locks."""
    with lockkit.connect(logins.locker, state_dir=str(tmp_path / "state"), max_hold=3600) as client:
        yield client


@pytest.fixture
def observed(logins, tmp_path, serving):
    """A server without tokens whose login may only look."""
    with lockkit.connect(logins.watcher, state_dir=str(tmp_path / "watching")) as watcher:
        application = make_app([watcher])
        application.stores.all[0].watch._interval = 0.05
        application.stores.all[0].watch._shared._seconds = 0.02
        yield Site(watcher, application, serving(application))


@pytest.fixture
def contended(client):
    """A lock that is held, and waited for; gives the lease."""
    lease = client.lock("busy").acquire(timeout=30, reason="nightly")
    waiter = threading.Thread(target=lambda: client.lock("busy").acquire(timeout=60).release())
    waiter.start()
    until(lambda: client.inspect("busy").waiters)
    yield lease
    lease.release()
    waiter.join(60)
    assert not waiter.is_alive()


def test_who_may_only_look_can_show_everything(observed, contended):
    (locks,) = observed.get("/api/locks", token=None).json["locks"]
    (lock,) = observed.get("/api/lock?name=busy", token=None).json["locks"]
    free = observed.get("/api/lock?name=free", token=None).json["locks"][0]
    until(
        lambda: observed.get("/readyz", token=None).status == 200
    )  # on a busy machine the first look may come too late
    until(lambda: observed.get("/health", token=None).json["stores"][0]["reachable"])
    health = observed.get("/health", token=None)

    assert locks["name"] == lock["name"] == "busy"
    assert lock["holders"][0]["claim_id"] == contended.claim_id
    assert lock["holders"][0]["reason"] == "nightly"
    assert locks["waiting"] == lock["waiting"] == len(lock["waiters"]) == 1
    assert free["state"] == "free"
    assert health.status == 200, health.text
    assert {one["verdict"] for one in health.json["stores"][0]["reasons"]} <= {"warning"}


def test_an_observer_is_enough_for_prometheus(observed, contended):
    text = observed.get("/metrics", token=None).text

    assert re.search(r"^lockkit_store_up\S* 1(\.0)?$", text, re.MULTILINE)
    assert re.search(r"^lockkit_scrape_partial\S* [1-9]", text, re.MULTILINE) is None
    assert re.search(r"^lockkit_scrape_partial", text, re.MULTILINE)


def test_an_observer_hears_of_changes(observed, client):
    with client.lock("first").acquire(timeout=30), Stream(observed, token=None) as stream:
        assert stream.next()["summary"]["held"] == 1
        with client.lock("second").acquire(timeout=30):
            assert stream.until("second")["summary"]["held"] == 2


def test_an_observer_changes_nothing_also_for_who_has_a_token(
    logins, contended, client, tmp_path, serving, token_file
):
    body = {"name": "busy", "claim_id": contended.claim_id, "reason": "hung"}
    with lockkit.connect(logins.watcher, state_dir=str(tmp_path / "watching")) as watcher:
        application = make_app([watcher], token_file=str(token_file))
        site = Site(watcher, application, serving(application))
        answers = [site.post(path, body) for path in ("/api/evict", "/api/ask-release")]
        (*outcomes,) = (one["outcome"] for one in records(watcher))

    assert [(one.status, one.json["error"]) for one in answers] == [(502, "PermissionDenied")] * 2
    assert outcomes == ["refused: PermissionDenied"] * 2
    (claim,) = client.inspect("busy").holders
    assert (claim.claim_id, claim.evicted, claim.release_requests) == (contended.claim_id, False, ())


def test_who_may_lock_may_operate(contended, client, serving, token_file):
    application = make_app([client], token_file=str(token_file))
    site = Site(client, application, serving(application))
    body = {"name": "busy", "claim_id": contended.claim_id, "reason": "hung"}

    asked = site.post("/api/ask-release", body, token="operate")
    evicted = site.post("/api/evict", body, token="operate")
    gone = site.post("/api/evict", {**body, "claim_id": "0" * 12}, token="operate")

    assert (asked.status, asked.json["request"]["reason"]) == (200, "hung (operateer)")
    assert (evicted.status, evicted.json["outcome"]) == (200, "MARKED")
    assert (gone.status, gone.json["error"]) == (409, "absent")
    assert contended.lost.wait(60)
