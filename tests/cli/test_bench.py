"""The benchmark that users run: lockkit on this host, without any other library."""

import contextlib
import fnmatch
import functools
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import lockkit
from lockkit.cli.main import run
from lockkit.testing.bench.command import BENCHES
from lockkit.testing.bench.figures import document, table
from lockkit.testing.bench.rounds import interleaved, ratio
from lockkit.testing.bench.trial import local
from lockkit.testing.bench.workers import started

SCHEMA = Path(__file__).parents[2] / "docs" / "schema" / "bench.json"


def quick(capsys, *words):
    assert run(["bench", *words, "--quick", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@functools.cache
def measured(name):
    """The document of one bench of the embedded store. Each is measured once for all tests that need it."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run(["bench", name, "--quick", "--json"]) == 0
    return json.loads(out.getvalue())


CONTENDED = pytest.mark.full  # three rounds of eight processes, as fast as they can


@pytest.mark.parametrize(
    "name", ["uncontended", "pipeline", "hand-off", pytest.param("contended", marks=CONTENDED)]
)
def test_a_bench_writes_a_document_that_keeps_to_its_schema(name):
    jsonschema = pytest.importorskip("jsonschema")

    document = measured(name)

    jsonschema.validate(document, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert {figure["bench"] for figure in document["figures"]} == {name}
    assert document["missing"] == []


def test_on_sqlite_lockkit_takes_turns_with_the_floor():
    ratios = [each for each in measured("uncontended")["figures"] if each["unit"] == "x"]

    assert {each["contender"] for each in ratios} == {"lockkit, SQLite"}
    assert all(each["value"] > 1 for each in ratios)


@pytest.mark.timeout(30)
def test_a_store_of_the_users_own_is_measured_in_a_namespace_of_the_benchmark(capsys, tmp_path):
    url = f"sqlite:{tmp_path}/own.db"

    with lockkit.connect(url, state_dir=str(tmp_path)) as client, client.lock("bench").acquire():
        document = quick(capsys, "uncontended", "--url", url)

    assert document["figures"]


def test_a_loop_and_turns_of_one_operation_are_both_measured():
    figures = measured("uncontended")["figures"]

    found = {each["what"] for each in figures if each["contender"] == "lockkit, SQLite"}
    assert {"acquire + release", "acquire + release, in turn", "CPU of the client, in turn"} <= found


@CONTENDED
def test_contention_is_told_by_grants_fairness_and_the_longest_wait():
    figures = [each for each in measured("contended")["figures"] if "busy" not in each["what"]]

    ours = {each["what"]: each["value"] for each in figures if each["contender"] == "lockkit, SQLite"}
    assert ours["8 processes on one name: grants"] > 10
    assert 0 < ours["fewest grants of a process, of an equal share"] <= 100
    assert ours["longest wait in 3 rounds"] >= ours["longest wait, median of the rounds"] > 0
    assert ours["CPU of the clients for one grant"] > 0


def test_a_store_that_processes_do_not_share_is_not_contended(capsys):
    assert quick(capsys, "contended", "--url", "memory:")["figures"] == []


def trial(**targets):
    return local("bench", targets, Path("/nonexistent"), "memory:", quick=True)


def test_a_rate_is_to_be_at_least_its_target_and_anything_else_at_most():
    rates = [trial(grants=2).figure("grants", value, "/s") for value in (3.0, 1.0)]
    waits = [trial(wait=2).figure("wait", value, "ms") for value in (3.0, 1.0)]

    assert [(each.target, each.met) for each in rates] == [(">= 2 /s", True), (">= 2 /s", False)]
    assert [(each.target, each.met) for each in waits] == [("<= 2 ms", False), ("<= 2 ms", True)]


def test_only_lockkit_and_only_what_a_pattern_matches_has_a_target():
    some = trial(wait=2)

    assert some.figure("wait", 3.0, "ms", "floor").target is None
    assert some.figure("wait, p99", 3.0, "ms").met is None


@pytest.mark.parametrize("name", ["uncontended", "pipeline", "hand-off"])
def test_every_target_is_one_of_a_figure_that_is_measured(name):
    aimed = [each["what"] for each in measured(name)["figures"] if each["target"]]

    assert all(fnmatch.filter(aimed, pattern) for pattern in BENCHES[name].targets)


def departing():
    yield "ready"


def test_a_worker_that_ended_is_an_error_that_gives_its_exit_code():
    def ask():
        with started(departing) as worker:
            assert worker.recv() == "ready"
            worker.send(None)
            worker.recv()

    with pytest.raises(RuntimeError, match="ended with exit code 1"):
        ask()


def test_a_store_without_a_floor_on_this_host_has_no_ratio(capsys):
    document = quick(capsys, "uncontended", "--url", "memory:")

    assert {each["unit"] for each in document["figures"]} == {"us"}


def test_the_benchmark_imports_no_other_library_for_locks():
    code = "import sys, lockkit.testing.bench.command; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"bench", "fasteners", "filelock", "portalocker", "redis", "support"} & set(loaded)


def test_the_command_line_names_every_bench(capsys):
    from lockkit.cli.commands import bench

    assert tuple(BENCHES) == bench.BENCHES
    assert run(["bench", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert all(name in told for name in BENCHES)


def test_an_unknown_bench_is_one_document_where_json_is_asked_for(capsys):
    assert run(["bench", "--json", "nosuch"]) == 64

    out, err = capsys.readouterr()
    assert out == ""
    document = json.loads(err)
    assert document["schema"] == "lockkit.error/1"
    assert "uncontended" in document["message"]  # one of those there are


def test_contenders_take_turns_and_the_first_round_is_thrown_away():
    turns = []

    def measure(name):
        return lambda: turns.append(name) or len(turns)

    taken = interleaved({"a": measure("a"), "b": measure("b")}, 2)

    assert turns == ["a", "b", "b", "a", "a", "b"]
    assert taken == {"a": [4, 5], "b": [3, 6]}


def test_a_ratio_is_made_within_each_round():
    assert ratio([2.0, 40.0, 6.0], [1.0, 20.0, 2.0]) == 2.0


def test_the_table_says_whether_a_target_was_reached():
    figures = [trial(wait=2).figure("wait", value, "ms") for value in (3.0, 1.0)]
    written = table(document(figures, {}, 1.0, quick=True))

    assert "3.00 ms" in written.splitlines()[2]
    assert "MISSED" in written.splitlines()[2]
    assert "reached" in written.splitlines()[3]
