"""The comparison with other projects' locks: that it measures, and what may be asserted about it. Ratios within one run, never seconds."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.command import BENCHES, main
from bench.contenders import peers
from bench.etcd_contenders import PEERS as ETCD_PEERS
from bench.redis_contenders import FLOOR, PEERS, PLAIN, WOKEN
from bench.redis_store import redis
from lockkit.testing.processes import ServerMissing

SCHEMA = Path(__file__).parents[2] / "docs" / "schema" / "bench.json"


def quick(capsys, *names):
    assert main([*names, "--quick", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def value(document, contender, what):
    found = [each for each in document["figures"] if each["contender"] == contender and each["what"] == what]
    assert len(found) == 1, (contender, what)
    return found[0]["value"]


needs_redis = pytest.mark.skipif(
    not (shutil.which("redis-server") or shutil.which("valkey-server")), reason="make servers"
)


SERVERS = {
    "redis": needs_redis,
    "redis-asyncio": needs_redis,
    "etcd": pytest.mark.skipif(not shutil.which("etcd"), reason="make servers"),
    "etcd-asyncio": pytest.mark.skipif(not shutil.which("etcd"), reason="make servers"),
    "zookeeper": pytest.mark.skipif(
        not Path("/usr/share/java/zookeeper.jar").exists() or not find_spec("kazoo"), reason="make servers"
    ),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=SERVERS.get(name, ())) for name in BENCHES])
def test_every_bench_writes_a_document_that_keeps_to_its_schema(capsys, name):
    jsonschema = pytest.importorskip("jsonschema")

    document = quick(capsys, name)

    jsonschema.validate(document, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert document["figures"]
    assert {figure["bench"] for figure in document["figures"]} == {name}


def test_an_uncontended_acquire_and_release_is_ahead_of_filelock(capsys):
    pytest.importorskip("filelock")
    what = "acquire + release, to the floor"

    document = quick(capsys, "uncontended")

    assert value(document, "lockkit, SQLite", what) < value(document, "filelock", what)


def test_a_hand_off_is_no_slower_than_that_of_the_fastest_library(capsys):
    peers = [name for name in ("filelock", "portalocker", "fasteners") if pytest.importorskip(name)]

    document = quick(capsys, "hand-off")

    ours = value(document, "lockkit, SQLite", "median")
    assert ours <= min(value(document, name, "median") for name in peers)


def test_a_missing_library_is_named_with_its_install_line(capsys, monkeypatch):
    monkeypatch.setattr("bench.contenders.find_spec", lambda _: None)

    document = quick(capsys, "uncontended")

    assert {"name": "filelock", "install": "pip install filelock"} in document["missing"]
    assert not [figure for figure in document["figures"] if figure["contender"] == "filelock"]


@pytest.fixture(scope="module")
def on_redis(tmp_path_factory):
    """The figures of one quick run."""
    return redis(tmp_path_factory.mktemp("bench"), "", "", quick=True)


def figure(figures, contender, what):
    (found,) = (each for each in figures if (each.contender, each.what) == (contender, what))
    return found


@needs_redis
def test_on_redis_every_library_that_is_installed_takes_turns_with_the_floor_and_lockkit(on_redis):
    found, _ = peers(PEERS)

    measured = {each.contender for each in on_redis if each.what == "acquire + release"}

    assert {FLOOR, "lockkit, Redis", *found} <= measured
    assert figure(on_redis, WOKEN, "hand-off, median").value > 0


@needs_redis
def test_on_redis_a_script_that_compares_is_measured_beside_a_plain_delete(on_redis):
    assert figure(on_redis, PLAIN, "acquire + release").value > 0
    assert figure(on_redis, PLAIN, "acquire + release, to the floor").value > 0


@needs_redis
def test_a_hand_off_on_redis_takes_a_few_requests_however_many_wait(on_redis):
    sent = [figure(on_redis, "lockkit, Redis", f"requests per hand-off, {n} waiters") for n in (2, 10, 100)]

    assert all(2 < each.value <= 6 for each in sent)


@needs_redis
def test_a_place_in_a_long_queue_on_redis_takes_the_server_little(on_redis):
    (place,) = (each for each in on_redis if each.what.startswith("a place among"))

    assert 0 < place.value <= 0.2


def no_server(*_, **__):
    raise ServerMissing("redis-server or valkey-server is not installed; run: make servers")


def test_without_a_server_its_bench_is_left_out_which_is_said(capsys, monkeypatch):
    monkeypatch.setattr("bench.command.BENCHES", {"pipeline": BENCHES["pipeline"], "redis": no_server})

    assert main(["--quick", "--json"]) == 0

    out, err = capsys.readouterr()
    assert {each["bench"] for each in json.loads(out)["figures"]} == {"pipeline"}
    assert "left out: redis: redis-server or valkey-server is not installed" in err


def test_a_bench_that_was_asked_for_and_has_no_server_is_an_error(capsys, monkeypatch):
    monkeypatch.setattr("bench.command.BENCHES", {"redis": no_server})

    assert main(["redis", "--quick"]) == 69

    assert "make servers" in capsys.readouterr().err


def test_an_unknown_bench_is_a_usage_error_that_names_those_there_are(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["speed"])

    assert stopped.value.code == 64
    assert "uncontended" in capsys.readouterr().err


def test_a_library_that_cannot_be_imported_is_left_out_and_why_is_said(capsys, monkeypatch):
    def refuse(_):
        raise TypeError("Descriptors cannot be created directly.\nIf this call came from a _pb2.py file, ...")

    monkeypatch.setattr("bench.contenders.find_spec", lambda _: object())
    monkeypatch.setattr("bench.contenders.import_module", refuse)
    monkeypatch.setattr("bench.contenders.metadata.version", lambda _: "6.33.5")
    monkeypatch.setattr("bench.command.BENCHES", {"etcd": lambda *_, **__: []})

    assert peers(ETCD_PEERS) == (["etcd3gw"], ["etcd3"])
    assert main(["etcd", "--quick"]) == 0

    err = capsys.readouterr().err
    assert "left out: etcd3: it cannot be imported: it wants protobuf before 4, and here is 6.33.5" in err
    assert "pip install etcd3 'protobuf<4'" in err
