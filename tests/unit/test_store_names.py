"""The names of stores: one for each, however its URL is written."""

from __future__ import annotations

from importlib import import_module

import pytest

import lockkit
from lockkit.config.config import load
from lockkit.config.store_names import is_local, name_of, one_name, store_of
from lockkit.observe.history import read_history
from lockkit.plugins.stores import SCHEMES
from lockkit.values import redaction
from tests.unit.test_event_journal import row

SPELLINGS = {
    "redis://h": (
        *("redis://h:6379", "redis://h/", "redis://h/0", "redis://h:6379/0/", "redis://H", "redis://h?db=0"),
        *(
            "redis://ann:secret@h/0",
            "redis://:secret@h",
            "redis://h?ttl=9s&min_replicas=1",
            "rediss://h:6379",
        ),
        *("redis://h?min_replicas=1&ttl=9s", "valkey://h", "valkeys://h/0", "REDIS://h:06379"),
    ),
    "redis://h/1": ("redis://h?db=1", "redis://h:6379/1", "redis://h/01?ttl=9s", "redis://h?ttl=9s&db=1"),
    "redis://h:6380": ("redis://h:6380/0", "rediss://ann:secret@H:6380"),
    "redis://localhost": ("redis://127.0.0.1", "redis://[::1]:6379/0", "redis://LocalHost", "redis://"),
    "redis+cluster://a,b": ("redis+cluster://b:6379,a", "valkey+cluster://A,B", "redis+cluster://a,b/"),
    "redis+sentinel://a,b/0": ("redis+sentinel://b:26379,a/0/0", "valkey+sentinel://a,b/0?db=0"),
    "redis+sentinel://a/m/2": ("redis+sentinel://a/m?db=2", "redis+sentinel://a/m/2?sentinel_password=x"),
    "unix:/run/x.sock": ("unix:///run/x.sock", "unix:///run/./x.sock?db=0", "unix:/run//x.sock"),
    "unix:/run/x.sock?db=1": ("unix:///run/x.sock?ttl=9s&db=1",),
    "etcd://a,b": ("etcd://b:2379,a:2379/", "etcds://ann:secret@A,b", "etcd+grpc://a,b", "etcds+grpc://a,b"),
    "zookeeper://a/top": ("zk://a:2181/top/", "zookeepers://ann:secret@a/t%6fp?tick=2&auth=digest"),
    "sqlite:/x/%C3%BC%25.db": ("sqlite:///x/ü%25.db", "sqlite:/x//y/../%c3%bc%25.db?synchronous=full"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_the_spellings_of_a_url_are_one_store(name):
    assert {url: name_of(url) for url in (name, *SPELLINGS[name])} == dict.fromkeys(
        (name, *SPELLINGS[name]), name
    )
    assert one_name(name) == name


def test_stores_apart_have_names_apart():
    apart = [
        *SPELLINGS,
        *("redis://h2", "redis+sentinel://a,b/m", "redis+sentinel://a,b/0/1", "zookeeper://a", "etcd://a"),
        *("redis://127.0.0.2", "memory://A", "memory://a", "theirs://H", "theirs://h", "theirs://h?a=1"),
    ]
    assert len({name_of(url) for url in apart}) == len(apart)


@pytest.mark.parametrize("scheme", [each for each in SCHEMES if each not in ("memory", "sqlite", "unix")])
def test_the_default_port_is_that_of_the_store(scheme):
    path = "/m" if "sentinel" in scheme else ""
    module = SCHEMES[scheme].module.replace("etcd3", "etcd")
    hosts = import_module(f"{module}.address").parse(f"{scheme}://h{path}").hosts
    [port] = [hosts.partition(":")[2]] if isinstance(hosts, str) else [each[1] for each in hosts]
    assert (
        name_of(f"{scheme}://h:{port}{path}")
        == name_of(f"{scheme}://h{path}")
        != name_of(f"{scheme}://h:1{path}")
    )


def test_a_new_password_does_not_make_another_store_and_another_option_does():
    redaction.declare("theirs3", ("pool",))
    one, other = "theirs3://ann:a@h/x?token=1&pool=2", "theirs3://bob:b@h/x?ttl=9s&pool=2&token=1"
    assert name_of(one) == name_of(other)
    assert "1" not in name_of(one).partition(" ")[0]
    assert name_of(one) != name_of(one.replace("token=1", "token=2"))
    assert name_of(one) != name_of(one.replace("pool=2", "pool=3"))


@pytest.mark.parametrize(
    "url", ["redis://ann:pass/word@h", "etcd:no", "unheard-of://h/a?x=1", "no url", "a:\n"]
)
def test_a_url_that_cannot_be_read_has_a_name_that_shows_nothing_of_it(url):
    name = name_of(url)
    assert "word" not in name
    assert one_name(name) == name != name_of(url + "x")


def test_a_link_to_the_file_of_a_store_and_the_default_are_one_store(tmp_path):
    def name(url, **more):
        return store_of(load(url, environ={}, config="/dev/null", **more))

    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    default = name("sqlite:", state_dir=str(tmp_path / "link"))
    assert default == name(f"sqlite:{tmp_path}/link/{default.rpartition('/')[2]}")
    assert default.startswith(f"sqlite:{tmp_path}/real/")


@pytest.mark.parametrize(
    "url, local",
    [
        *(("redis://[::1]:7000/1", True), ("etcd://127.0.0.1:23,127.9.9.9", True), ("unix:///run/x", True)),
        *(("redis://localhost.example.org", False), ("etcd://localhost,box", False), ("sqlite:/x", False)),
        *(("theirs://LOCALHOST:5", True), ("theirs://box/localhost", False), ("redis://h", False)),
    ],
)
def test_each_host_has_a_store_of_its_own_at_its_loopback_address(url, local):
    assert is_local(name_of(url)) is local


def test_rows_that_name_one_store_differently_are_of_one_store(tmp_path):
    path = tmp_path / "x.jsonl"
    urls = ["redis://***@box:6379/0", "redis://Box/", "rediss://ann:***@box", "redis://box"]
    path.write_text("".join(row(str(n), 1, "acquired", "one", 1.0, store=url) for n, url in enumerate(urls)))
    assert {hold.key.store for hold in read_history([path]).holds} == {"redis://box"}


def test_a_journal_is_read_by_each_spelling(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    url = f"sqlite:{tmp_path}/a b.db"
    with lockkit.connect(f"sqlite://{tmp_path}/a%20b.db", journal=True) as client, client.lock("a").acquire():
        pass
    found = read_history(config=load(url, journal=True)).only(store_of(load(url)), None)
    assert [hold.name for hold in found.holds] == ["a"]
