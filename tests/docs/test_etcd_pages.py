"""docs/backends/etcd.md and the etcd part of docs/layout.md: what they claim, tried on a real server."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

import lockkit
import lockkit_etcd
import lockkit_etcd3
from lockkit.store import certificates
from lockkit.testing.processes import until
from lockkit_etcd import address, health
from support.pages import DOCS, section, table
from support.servers.etcd import EtcdServer
from support.servers.started import started

pytestmark = pytest.mark.skipif(not (shutil.which("etcd") and shutil.which("etcdctl")), reason="make servers")

PAGE = (DOCS / "backends/etcd.md").read_text()
LAYOUT = (DOCS / "layout.md").read_text().partition("\n## etcd\n")[2].partition("\n## ")[0]
ONE_LINERS = re.findall(r"^\$ (etcdctl .*)$", LAYOUT, re.MULTILINE)


server = started(EtcdServer)


@pytest.fixture
def client(server):
    with lockkit.connect(server.url()) as client:
        yield client


def run(server, line):
    """A line of the page, against the test's server."""
    line = line.replace("etcdctl ", f"etcdctl --endpoints={server.address} ", 1)
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True, timeout=60).stdout


def test_every_url_of_the_page_is_one_and_no_scheme_is_missing():
    urls = re.findall(r"`([a-z+]+://[^`]*)`", section(PAGE, "## URLs"))

    for url in urls:
        address.parse(url)

    specs = (*lockkit_etcd.lockkit_backends(), *lockkit_etcd3.lockkit_backends())
    offered = {scheme for spec in specs for scheme in spec.schemes}
    assert {url.partition(":")[0] for url in urls} == offered


def test_every_option_has_a_row_and_no_other():
    rows = table(section(PAGE, "## URLs"))
    named = {name for row in rows for name in re.findall(r"^`(\w+)`$|`(\w+)`(?=,|$)", row[0])}

    assert {one or two for one, two in named} == set(certificates.OPTIONS)


def test_every_finding_of_the_doctor_has_a_row_and_no_other():
    source = Path(health.__file__).read_text()
    found = set(re.findall(r'Finding\(\s*"(\w+)",\s*"(\w+)"', source))
    found |= {("alarm", "error"), ("alarm", "warning")}  # by one expression

    rows = {(row[0].strip("`"), row[1]) for row in table(section(PAGE, "## What doctor says"))[1:]}

    assert rows == found


def test_the_lines_of_the_layout_show_what_they_say_and_no_token(server, client):
    holder, waiter = client.lock("backup", ttl=60), lockkit.connect(server.url())
    standing = threading.Event()
    lease = holder.acquire(note={"why": "docs"})
    other = threading.Thread(
        target=lambda: waiter.lock("backup").acquire(60.0, on_wait=lambda _: standing.set()).release()
    )
    other.start()
    assert standing.wait(40)
    client.put_record("backup", {"last": "docs"}, 0)
    try:
        said = {line: run(server, line) for line in ONE_LINERS}
    finally:
        lease.release()
        other.join()
        waiter.close()
    names, count, queue, leases, record, members = said.values()
    assert names.split() == ["backup", "backup"]
    assert '"Count" : 2' in count
    states = [json.loads(line)["state"] for line in queue.splitlines() if line]
    assert states == ["HELD", "WAITING"]
    assert "found" in leases
    assert json.loads(record)["value"] == {"last": "docs"}
    assert server.address in members
    assert all(lease.token not in text for text in said.values())


def test_every_key_and_field_that_is_stored_has_a_row(server, client):
    with client.lock("full", ttl=60, min_hold=1, lock_delay=1, max_hold=30).acquire(note={"a": 1}) as lease:
        client.annotate("full", lease.claim_id, {"b": 2})
        with lockkit.connect(server.url()) as other:
            other.adopt(lease.handle()).extend(60)
        client.evict("full", lease.claim_id, reason="docs")
        client.put_record("full", {}, 0)
        client.drain("docs")
        kvs = server.call("kv/range", {"key": b"lockkit/", "range_end": b"lockkit0"})["kvs"]
        client.undrain()
    documented = {name for row in table(LAYOUT) for name in re.findall(r"`(\w+)`", row[0])}
    shapes = {row[0].strip("`").split("/")[2] for row in table(LAYOUT) if row[0].startswith("`lockkit/")}
    keys = [base64.b64decode(kv["key"]).decode() for kv in kvs]
    claims = [
        json.loads(base64.b64decode(kv["value"])) for kv, key in zip(kvs, keys, strict=True) if "/q/" in key
    ]

    assert {key.split("/")[2] for key in keys} == shapes
    assert any(key.endswith("+") for key in keys)
    assert {field for value in claims for field in value} == documented - {"try"}


def test_nothing_is_left_of_a_name_but_its_record(server, client):
    client.lock("gone", ttl=60).acquire().release()

    def left():
        kvs = server.call("kv/range", {"key": b"lockkit/", "range_end": b"lockkit0"}).get("kvs", [])
        keys = [base64.b64decode(kv["key"]).decode() for kv in kvs]
        return [key for key in keys if "gone" in key]

    until(lambda: left() == [], "it is gone")


@pytest.mark.parametrize("terms", [{}, {"min_hold": 1}, {"lock_delay": 1}], ids=str)
def test_the_next_claim_has_the_same_key_unless_something_may_block_on_under_it(server, client, terms):
    def key():
        kvs = server.call("kv/range", {"key": b"lockkit/default/q/", "range_end": b"lockkit/default/q0"})[
            "kvs"
        ]
        return min(base64.b64decode(kv["key"]) for kv in kvs)  # not its guard

    name = f"again{len(terms)}{''.join(terms)}"
    lock = client.lock(name, ttl=60, **terms)
    with lock.acquire():
        first = key()
    with lock.acquire(timeout=10):
        second = key()

    assert (first == second) == (not terms)
    assert "except after a claim with `min_hold` or `lock_delay`: then it uses a new key" in LAYOUT


def test_an_uncontended_lock_takes_two_requests(server, client):
    lock = client.lock("counted", ttl=60)
    lock.acquire().release()
    before = server.requests()
    for _ in range(20):
        lock.acquire().release()
    assert server.requests() - before <= 2 * 20 + 2


def _kibibytes(cell):
    return float(re.match(r"([\d.]+) KiB", cell).group(1)) * 1024


def _size(server):
    """The bytes of the database, without history and holes."""
    server.compact()
    server.call("maintenance/defragment", {}, timeout=30.0)
    return int(server.status()["dbSize"])


def _connections(server):
    """How many connections clients have to it."""
    here = f":{server.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(here) and row[3] == "01" for row in rows)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="nothing tells the connections")
def test_claims_take_no_more_room_and_connections_than_the_page_says():
    rows = {row[0]: row[1] for row in table(section(PAGE, "## Size")) if len(row) > 1 and "KiB" in row[1]}
    many, threads = 24, []
    with EtcdServer() as server, lockkit.connect(server.url()) as holder, contextlib.ExitStack() as stack:
        empty = _size(server)
        leases = [holder.lock(f"held-{at}", ttl=60).acquire() for at in range(100)]
        held = _size(server)
        assert (held - empty) / 100 <= _kibibytes(rows["a held claim"])
        before, standing = _connections(server), threading.Semaphore(0)
        for _ in range(many):
            client = stack.enter_context(lockkit.connect(server.url()))
            for at in range(4):
                lock = client.lock(f"held-{at}", ttl=60)
                wait = threading.Thread(
                    target=lambda lock=lock: lock.acquire(
                        60.0, on_wait=lambda _: standing.release()
                    ).release()
                )
                threads.append(wait)
                wait.start()
        for _ in threads:
            assert standing.acquire(timeout=20.0)
        assert (_size(server) - held) / len(threads) <= _kibibytes(rows["a waiting claim"])
        # A client has a connection for each call under way (here 4, and the heartbeat's) and for each watch.
        # The holder's heartbeat has one more.
        assert _connections(server) - before <= many * (4 + 1 + 4) + 1
        for lease in leases:
            lease.release()
        for wait in threads:
            wait.join()
