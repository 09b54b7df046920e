"""The comparison with other projects' locks. Only ratios within one run are asserted, never seconds."""

import contextlib
import fnmatch
import functools
import io
import json
from pathlib import Path

import pytest

from bench.command import BENCHES, main
from bench.contenders import PEERS, installed
from bench.floors import FLOOR, PLAIN, WOKEN
from lockkit.testing.bench.command import Bench
from lockkit.testing.processes import ServerMissing

SCHEMA = Path(__file__).parents[2] / "docs" / "schema" / "bench.json"


@functools.cache
def measured(*names):
    """The document of a quick run. Each bench is measured once for all tests that look at it."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        if main([*names, "--quick", "--json"]) == 69:
            pytest.skip("make servers")
    return json.loads(out.getvalue())


def figure(name, contender, what):
    figures = measured(name)["figures"]
    (found,) = (each for each in figures if (each["contender"], each["what"]) == (contender, what))
    return found


def value(name, contender, what):
    return figure(name, contender, what)["value"]


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_writes_a_document_that_keeps_to_its_schema_with_a_figure_for_each_target(name):
    jsonschema = pytest.importorskip("jsonschema")

    document = measured(name)

    jsonschema.validate(document, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert document["figures"]
    assert {each["bench"] for each in document["figures"]} == {name}
    aimed = [each["what"] for each in document["figures"] if each["target"]]
    missing = {each["name"] for each in document["missing"]}
    assert [each for each in BENCHES[name].targets if not fnmatch.filter(aimed, each)] == [], missing


def test_an_uncontended_acquire_and_release_is_ahead_of_filelock():
    pytest.importorskip("filelock")
    what = "acquire + release, to the floor"

    assert value("uncontended", "lockkit, SQLite", what) < value("uncontended", "filelock", what)
    assert figure("uncontended", "lockkit, SQLite", what)["target"].startswith("ahead of filelock (")


def test_a_hand_off_is_no_slower_than_that_of_the_fastest_library():
    peers = [name for name in ("filelock", "portalocker", "fasteners") if pytest.importorskip(name)]

    fastest = min(value("hand-off", name, "median") for name in peers)
    assert value("hand-off", "lockkit, SQLite", "median") <= fastest
    assert f"({fastest:.2f} ms)" in figure("hand-off", "lockkit, SQLite", "median, to its peers")["target"]


def test_on_redis_every_library_that_is_installed_takes_turns_with_the_floor_and_lockkit():
    measured_ = {
        each["contender"] for each in measured("redis")["figures"] if each["what"] == "acquire + release"
    }

    assert {FLOOR, "lockkit, Redis", *installed(PEERS["redis"])} <= measured_
    assert value("redis", *WOKEN["redis"], "hand-off, median") > 0


def test_on_redis_a_script_that_compares_is_measured_beside_a_plain_delete():
    assert value("redis", PLAIN, "acquire + release") > 0
    assert value("redis", PLAIN, "acquire + release, to the floor") > 0


@pytest.mark.parametrize("waiters", [2, 10, 100])
def test_a_hand_off_on_redis_takes_a_few_requests_however_many_wait(waiters):
    assert 2 < value("redis", "lockkit, Redis", f"requests per hand-off, {waiters} waiters") <= 6


def test_a_place_in_a_long_queue_on_redis_takes_the_server_little():
    assert 0 < value("redis", "lockkit, Redis", "a place among 200 waiters: time of the server") <= 0.2


def test_on_redis_more_is_to_be_granted_than_by_a_library_that_is_fair():
    pytest.importorskip("redis_lock")
    what = "8 processes on one name: grants"

    target = figure("redis", "lockkit, Redis", what)["target"]
    assert target == f">= {value('redis', 'python-redis-lock', what):g} /s"


def test_a_missing_library_is_named_with_its_install_line(capsys, monkeypatch):
    monkeypatch.setattr("bench.contenders.find_spec", lambda _: None)

    assert main(["pipeline", "uncontended", "--quick", "--json"]) == 0

    document = json.loads(capsys.readouterr().out)
    assert {"name": "filelock", "install": "pip install filelock"} in document["missing"]
    assert not [figure for figure in document["figures"] if figure["contender"] == "filelock"]


def no_server(_):
    raise ServerMissing("redis-server or valkey-server is not installed; run: make servers")


def test_without_a_server_its_bench_is_left_out_which_is_said(capsys, monkeypatch):
    benches = {"pipeline": BENCHES["pipeline"], "redis": Bench(no_server)}
    monkeypatch.setattr("bench.command.BENCHES", benches)

    assert main(["--quick", "--json"]) == 0

    out, err = capsys.readouterr()
    assert {each["bench"] for each in json.loads(out)["figures"]} == {"pipeline"}
    assert "left out: redis: redis-server or valkey-server is not installed" in err


def test_a_bench_that_was_asked_for_and_has_no_server_is_an_error(capsys, monkeypatch):
    monkeypatch.setattr("bench.command.BENCHES", {"redis": Bench(no_server)})

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
    monkeypatch.setattr("bench.command.BENCHES", {"etcd": Bench(lambda _: [], peers=PEERS["etcd"])})

    assert installed(PEERS["etcd"]) == ["etcd3gw"]
    assert main(["etcd", "--quick"]) == 0

    err = capsys.readouterr().err
    assert "left out: etcd3: it cannot be imported: it wants protobuf before 4, and here is 6.33.5" in err
    assert "pip install etcd3 'protobuf<4'" in err
