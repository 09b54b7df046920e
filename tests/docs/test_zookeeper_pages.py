"""docs/backends/zookeeper.md, docs/ops/zookeeper-acl.md, docs/layout.md: their claims on a real server."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import subprocess
import threading
from pathlib import Path

import pytest

import lockkit
from support.pages import DOCS, section, table
from support.servers.started import started
from support.servers.zookeeper import ZooKeeperServer

kazoo = pytest.importorskip("kazoo")

from kazoo.security import ACL, Id  # noqa: E402

import lockkit_zookeeper  # noqa: E402
from lockkit_zookeeper import address, health, node_data  # noqa: E402

PAGE = (DOCS / "backends/zookeeper.md").read_text()
RIGHTS = (DOCS / "ops/zookeeper-acl.md").read_text()
LAYOUT = (DOCS / "layout.md").read_text().partition("\n## ZooKeeper\n")[2].partition("\n## ")[0]
CLI = Path("/usr/share/zookeeper/bin/zkCli.sh")
PERMISSIONS = {"r": 1, "w": 2, "c": 4, "d": 8, "a": 16}


server = started(ZooKeeperServer, tick=2.0, longest_session=40.0)


def at(url, server):
    """A URL of a page, on our server."""
    return re.sub(r"zk1:2181,zk2:2181,zk3:2181", server.address, url)


# -- URLs


def test_every_url_of_the_page_is_one_and_no_scheme_is_missing():
    urls = re.findall(r"`([a-z]+://[^`]*)`", section(PAGE, "## URLs"))
    (spec,) = lockkit_zookeeper.lockkit_backends()
    for url in urls:
        address.parse(url)
    assert {url.partition(":")[0] for url in urls} == set(spec.schemes)


def test_every_option_has_a_row_and_no_other():
    named = {name for row in table(section(PAGE, "## URLs")) for name in re.findall(r"`(\w+)`", row[0])}
    assert named == set(address._OPTIONS)


def test_an_option_that_does_not_exist_is_refused_with_those_there_are():
    with pytest.raises(lockkit.ConfigError) as refused:
        address.parse("zookeeper://host?ticks=1")
    assert "tick" in refused.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "zookeeper://host/a//b",
        "zookeeper://host/a/../b",
        "zookeeper://host:port",
        "zookeeper://host:70000",
        "zookeeper://secret@host",
        "zookeeper://:secret@host",
        "zookeeper://host?auth=sasl",
        "zookeeper://u:secret@host?auth=kerberos",
        "zookeeper://host?tick=soon",
        "zookeeper://host?tick=2&margin=1",
        "zookeeper://host?max_ttl=5",
        "zookeeper://host?observer=somebody",
        "zookeeper://host?ca_file=/etc/passwd",
        "zookeeper://host?tls=maybe",
        "zookeeper://host#fragment",
        "zookeeper://[::1",
    ],
)
def test_what_is_no_url_is_refused_and_no_password_told(url):
    with pytest.raises(lockkit.ConfigError) as refused:
        address.parse(url)
    assert "secret" not in str(refused.value)


def test_what_may_be_left_out():
    plain = address.parse("zookeeper://")
    assert (plain.hosts, plain.chroot, plain.tick, plain.margin, plain.max_ttl) == (
        "localhost:2181",
        "",
        2.0,
        2.0,
        40.0,
    )
    assert address.parse("zookeeper://[::1]:2182,b/x/y/").hosts == "[::1]:2182,b:2181"
    assert address.parse("zookeeper://u:p%40ss@h").password == "p@ss"
    assert "p@ss" not in repr(address.parse("zookeeper://u:p%40ss@h"))


def test_the_ttls_of_the_page_are_those_that_are_declared():
    can = lockkit_zookeeper.CAPABILITIES
    assert f"a ttl is {can.min_ttl:g} to {can.max_ttl:g} s with servers" in PAGE
    half = address.declared(address.parse("zookeeper://h?tick=0.5"))
    assert f"with `tickTime=500` and `?tick=0.5` a ttl may be {half.min_ttl:g} to {half.max_ttl:g} s" in PAGE


def test_a_ttl_beyond_the_limits_is_told_with_what_can_be_changed(server, caplog):
    changes = ("?tick=", "?max_ttl=", "tickTime", "minSessionTimeout", "maxSessionTimeout")
    with (
        lockkit.connect(f"{server.url('/app')}?tick=0.5&ttl=20") as client,
        client.lock("a", ttl=60).acquire(5.0) as lease,
    ):
        assert lease.ttl == 10
        assert client.lock("b").terms.ttl == 10
    (told,) = [record.message for record in caplog.records]
    assert "a ttl of 60 s was asked for" in told
    assert "grants 10 s" in told
    with lockkit.connect(f"{server.url('/app')}?tick=0.5&ttl=20", strict=True) as client:
        with pytest.raises(lockkit.ConfigError, match="grants 10 s instead") as refused:
            client.lock("a", ttl=60)
        for word in ("--ttl", "ttl=", *changes):
            assert word in refused.value.hint
        with pytest.raises(lockkit.ConfigError) as refused:
            client.lock("a")
        assert refused.value.hint.startswith("this ttl comes from: query of the URL")
    assert all(word in told for word in changes)


# -- doctor


def test_every_finding_of_the_doctor_has_a_row_and_no_other():
    source = Path(health.__file__).read_text()
    found = set(re.findall(r'Finding\(\s*"(\w+)",\s*"(\w+)"', source))
    rows = {(row[0].strip("`"), row[1]) for row in table(section(PAGE, "## What doctor says"))[1:]}
    assert rows == found


def test_the_doctor_warns_of_a_chroot_below_which_nobody_is_and_makes_none(server):
    def said():
        return {found.check: (found.severity, found.message) for found in client.check()}

    with lockkit.connect(server.url("/no/such")) as client, server.connect() as look:
        found = said()
        assert "does not exist" in found["chroot"][1]
        assert "rights" not in found
        assert look.exists("/no") is None
        look.ensure_path("/no/such")
        found = said()
        assert "nobody has used lockkit below" in found["chroot"][1]
        assert found["rights"][0] == "ok"
        assert "chroot" not in said()


def test_a_chroot_that_is_missing_is_made_by_the_first_lock(server):
    with lockkit.connect(server.url("/first")) as client, server.connect() as look:
        client.names()
        assert look.exists("/first") is None
        client.lock("a").acquire(5.0).release()
        assert look.exists("/first/lockkit")


def test_the_doctor_sees_what_the_table_says(server):
    with lockkit.connect(server.url("/app")) as client:
        client.lock("a").acquire(5.0).release()
        said = {(found.check, found.severity) for found in client.check()}
    assert said == {("server", "ok"), ("ensemble", "warning"), ("sessions", "ok"), ("rights", "ok")}
    with ZooKeeperServer(tick=0.2, shortest_session=5.0, longest_session=6.0) as other:
        with lockkit.connect(f"{other.url('/app')}?tick=0.2&max_ttl=9") as client:
            found = {found.check: found for found in client.check()}
            assert found["tick"].severity == "warning"
            assert "?tick=2.5" in found["tick"].hint
            assert found["sessions"].severity == "warning"
            for asked, granted in ((2, 5), (8, 6)):
                with client.lock("a", ttl=asked).acquire(5) as lease:
                    assert lease.ttl == granted
            assert (client.capabilities.min_ttl, client.capabilities.max_ttl) == (5, 6)
            assert {found.check for found in client.check()} >= {"tick", "sessions"}, (
                "what was learned hides it"
            )
        with pytest.raises(lockkit.BackendUnavailable, match="strict refuses"):
            lockkit.connect(f"{other.url('/app')}?tick=0.2&max_ttl=9", strict=True).check()


# -- rights


def test_the_rights_of_the_page_are_enough_and_its_hashes_are_right(server):
    for login, hashed in re.findall(r"printf '([^']+)'.*\n(\S+)\n", RIGHTS):
        made = base64.b64encode(hashlib.sha1(login.encode(), usedforsecurity=False).digest()).decode()
        assert made == hashed
    locker, watcher = (at(url, server) for url in re.findall(r"^(zookeeper://.*)$", RIGHTS, re.MULTILINE))
    line = re.search(r"^setAcl (/app) (digest\S+)$", RIGHTS, re.MULTILINE)
    chroot = "/of-the-page"
    with server.connect() as admin:
        admin.create(chroot, acl=[acl(each) for each in line[2].split(",")])
    with (
        lockkit.connect(locker.replace("/app", chroot)) as client,
        lockkit.connect(watcher.replace("/app", chroot)) as observer,
        client.lock("a").acquire(2) as lease,
    ):
        assert observer.inspect("a").holders[0].claim_id == lease.claim_id
        with pytest.raises(lockkit.PermissionDenied):
            observer.lock("b").try_acquire()


def acl(text):
    scheme, user, hashed, letters = text.split(":")
    return ACL(sum(PERMISSIONS[letter] for letter in letters), Id(scheme, f"{user}:{hashed}"))


# -- layout


def test_every_field_of_a_claim_has_a_row_and_no_other(server):
    rows = {name for row in table(LAYOUT)[1:] for name in re.findall(r"^`(\w+)`|, `(\w+)`", row[0])}
    fields = {one or two for one, two in rows}
    source = Path(node_data.__file__).parent
    written = {
        name
        for file in ("node_data.py", "maintenance.py", "resizing.py", "operating.py")
        for name in re.findall(r'"(\w+)":', (source / file).read_text())
    }
    written |= {"since", "note", "max_hold", "owner"}
    assert fields - {"drain"} == written - {"written", "value"}  # drain is a node


@pytest.mark.skipif(not CLI.exists(), reason="make servers")
def test_the_lines_of_the_page_show_what_they_say_they_show(server):
    lines = re.findall(r"^\$ (zkCli\.sh .*)$", LAYOUT, re.MULTILINE)
    assert len(lines) == 5
    with lockkit.connect(server.url("/app")) as client, lockkit.connect(server.url("/app")) as other:
        standing = threading.Event()
        with client.lock("backup").acquire(2) as lease:
            client.put_record("backup", {"last": "page"}, 0)
            thread = threading.Thread(target=waits, args=(other, standing))
            thread.start()
            assert standing.wait(40)
            names, queue, everybody, stat, record = (said(line, server) for line in lines)
            assert "[backup]" in names
            assert len(re.findall(r"[0-9a-f]{32}-1-1-\d{10}", queue)) == 2
            assert lease.token in everybody
            assert "numChildren = 2" in stat
            assert '"value":{"last":"page"}' in record
        thread.join(40)


def waits(client, standing):
    client.lock("backup").acquire(600, on_wait=lambda _: standing.set()).release()


def said(line, server):
    words = [str(CLI), *shlex.split(line.replace("localhost:2181", server.address))[1:]]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "JVMFLAGS": "-Xmx64m"},
    )
    # Its thread for events writes whenever it likes, also into the middle of a line.
    return re.sub(r"\n?WATCHER::\n\n.*\n", "", done.stdout)
