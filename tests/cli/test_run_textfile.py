"""`lockkit run --metrics-textfile`: the file while a run waits, while its command runs, and at the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from lockkit.observe.exposition import parse


@pytest.fixture
def collector(lockkit):
    folder = lockkit.folder / "collector"
    folder.mkdir()
    return folder


@pytest.fixture
def configured(lockkit):
    """A configuration in which `nightly` and all `gpu/...` have a label of their own."""
    file = lockkit.folder / "config.toml"
    file.write_text('[metrics]\nnames = ["nightly", "gpu/*"]\n')
    lockkit.env["LOCKKIT_CONFIG"] = str(file)


def values(path, **labels):
    """The metrics of one lock in a file, by their names without the prefix."""
    found = parse(path.read_bytes())
    key = tuple({"run": path.stem, "lock": "nightly", **labels}.items())
    return {name.removeprefix("lockkit_run_"): told[key] for name, told in found.items() if key in told}


def test_a_run_that_succeeds_says_when_and_for_how_long(lockkit, collector, configured):
    path = collector / "backup.prom"

    done = lockkit("run", "nightly", "--metrics-textfile", path, "--", "sleep", "0.1")

    assert (done.returncode, done.stderr) == (0, "")
    told = values(path)
    assert (told["acquired"], told["exit_code"]) == (1, 0)
    assert told["running"] == 0
    assert told["hold_seconds"] >= 0.1
    assert (
        told["started_timestamp_seconds"]
        <= told["ended_timestamp_seconds"]
        == told["last_success_timestamp_seconds"]
    )
    assert "last_failure_timestamp_seconds" not in told
    assert list(collector.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_failure_keeps_the_last_success(lockkit, collector, configured):
    path = collector / "backup.prom"
    lockkit("run", "nightly", "--metrics-textfile", path, "--", "true")
    before = values(path)

    done = lockkit("run", "nightly", "--metrics-textfile", path, "--", "sh", "-c", "exit 3")

    told = values(path)
    assert done.returncode == told["exit_code"] == 3
    assert told["last_success_timestamp_seconds"] == before["last_success_timestamp_seconds"]
    assert told["last_failure_timestamp_seconds"] == told["ended_timestamp_seconds"]


def test_a_run_without_its_lock_writes_that_and_what_was_before(lockkit, collector, configured):
    path = collector / "backup.prom"
    lockkit("run", "nightly", "--metrics-textfile", path, "--", "true")
    before = values(path)
    lockkit.holder("nightly")

    done = lockkit("run", "nightly", "--no-wait", "--metrics-textfile", path, "--", "true")

    told = values(path)
    assert done.returncode == told["exit_code"] == 75
    assert told["acquired"] == 0
    assert told["hold_seconds"] == before["hold_seconds"]
    assert told["last_success_timestamp_seconds"] == before["last_success_timestamp_seconds"]


def test_a_busy_lock_that_counts_as_well_is_neither_success_nor_failure(lockkit, collector, configured):
    path = collector / "backup.prom"
    lockkit.holder("nightly")

    done = lockkit("run", "nightly", "--no-wait", "-E", "0", "--metrics-textfile", path, "--", "true")

    told = values(path)
    assert done.returncode == told["exit_code"] == 0
    assert {"last_success_timestamp_seconds", "last_failure_timestamp_seconds"} & set(told) == set()


def test_a_store_that_does_not_answer_is_a_failure_of_the_job_under_its_own_label(
    lockkit, collector, configured
):
    path = collector / "backup.prom"

    done = lockkit(
        *("run", "nightly", "--url", "redis://127.0.0.1:1", "--timeout", "1s"),
        *("--metrics-textfile", path, "--", "true"),
    )

    told = values(path)
    assert done.returncode == told["exit_code"] == 69
    assert told["acquired"] == 0


def test_a_broken_configuration_does_not_rename_the_job(lockkit, collector, configured):
    path = collector / "backup.prom"
    lockkit("run", "nightly", "--metrics-textfile", path, "--", "true")
    (lockkit.folder / "config.toml").write_text("no = [")

    done = lockkit("run", "nightly", "--metrics-textfile", path, "--", "true")

    assert done.returncode == values(path)["exit_code"] == 78
    assert "last_success_timestamp_seconds" in values(path)


def test_the_file_is_there_while_the_run_waits_and_while_its_command_runs(lockkit, collector, configured):
    holder = lockkit.holder("nightly")
    path = collector / "backup.prom"

    run = lockkit.start("run", "nightly", "-q", "--metrics-textfile", path, "--", "cat", path)

    lockkit.until(path.exists)
    assert (values(path)["running"], values(path)["acquired"]) == (1, 0)
    assert "exit_code" not in values(path)
    holder.send_signal(signal.SIGTERM)
    out, err = run.communicate(timeout=40)
    assert (run.returncode, err) == (0, "")
    assert "lockkit_run_running{" in out


def test_a_run_that_is_ended_by_a_signal_writes_its_end(lockkit, collector, configured):
    path = collector / "backup.prom"
    run = lockkit.start("run", "nightly", "--metrics-textfile", path, "--", "sleep", "60")
    lockkit.until(lambda: [claim for claim in lockkit.claims("nightly") if claim["state"] == "HELD"])

    run.send_signal(signal.SIGTERM)

    assert run.wait(40) == 143
    assert (values(path)["running"], values(path)["exit_code"]) == (0, 143)


def test_names_are_labels_only_where_the_configuration_lists_them(lockkit, collector, configured):
    path = collector / "several.prom"

    lockkit("run", "gpu/0", "gpu/1", "secret", "--metrics-textfile", path, "--", "true")

    assert values(path, lock="gpu/*")["acquired"] == values(path, lock="other")["acquired"] == 1
    assert "secret" not in path.read_text()
    assert "gpu/0" not in path.read_text()


def test_of_any_of_several_locks_the_one_that_was_got_is_marked(lockkit, collector, configured):
    path = collector / "any.prom"
    lockkit.holder("nightly")

    lockkit("run", "--any", "nightly", "gpu/0", "--metrics-textfile", path, "--", "true")

    assert (values(path)["acquired"], values(path, lock="gpu/*")["acquired"]) == (0, 1)


def test_a_run_under_the_hold_of_another_has_its_lock(lockkit, collector, configured):
    path = collector / "inner.prom"
    inner = lockkit.line("run", "nightly", "--nested", "reuse", "--metrics-textfile", path, "--", "true")

    done = lockkit("run", "nightly", "--", *inner)

    assert (done.returncode, values(path)["acquired"]) == (0, 1)


@pytest.mark.parametrize("code", [0, 5])
def test_a_file_that_cannot_be_written_is_told_once_and_changes_no_exit_status(lockkit, code):
    path = lockkit.folder / "missing" / "x.prom"

    done = lockkit("run", "x", "--metrics-textfile", path, "--", "sh", "-c", f"exit {code}")

    assert done.returncode == code
    assert done.stderr == f"lockkit: cannot write the metrics {path}: No such file or directory\n"


def test_a_pipe_in_the_place_of_the_file_is_replaced(lockkit, collector):
    """A FIFO that nobody writes to would block whoever opens it."""
    path = collector / "x.prom"
    os.mkfifo(path)

    done = lockkit("run", "x", "--metrics-textfile", path, "--", "sh", "-c", "exit 4")

    assert (done.returncode, done.stderr) == (4, "")
    assert path.is_file()


def test_a_name_that_node_exporter_would_not_read_is_refused(lockkit, collector):
    done = lockkit("run", "x", "--metrics-textfile", collector / "x.txt", "--", "true")

    assert done.returncode == 64
    assert "x.txt.prom" in done.stderr
    assert list(collector.iterdir()) == []


def test_a_file_of_somebody_else_is_replaced_and_not_believed(lockkit, collector, configured):
    path = collector / "backup.prom"
    path.write_bytes(
        b'lockkit_run_last_success_timestamp_seconds{run="backup",lock="nightly"} often\nother 1\n\xff\n'
    )

    lockkit("run", "nightly", "--metrics-textfile", path, "--", "sh", "-c", "exit 1")

    assert "last_success_timestamp_seconds" not in values(path)
    assert "other 1" not in path.read_text()


def test_promtool_finds_nothing_to_say_about_the_file(lockkit, collector, configured):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; .ci/system prometheus")
    path = collector / 'it"s.prom'
    lockkit("run", "nightly", "--metrics-textfile", path, "--", "true")

    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=path.read_text(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
