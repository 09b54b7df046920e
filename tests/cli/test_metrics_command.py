"""`lockkit metrics`: the text, the file for node_exporter, JSON, and a store that does not answer."""

from __future__ import annotations

import shutil
import subprocess

from prometheus_client.parser import text_string_to_metric_families


def test_the_text_is_one_that_prometheus_reads(lockkit, tmp_path):
    done = lockkit("metrics")

    families = {family.name for family in text_string_to_metric_families(done.stdout)}
    assert {"lockkit_store_up", "lockkit_scrape_partial"} <= families
    promtool = shutil.which("promtool")
    if promtool is not None:
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=done.stdout, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_textfile_is_written_whole_and_nothing_else_is_left(lockkit, tmp_path):
    folder = tmp_path / "collector"
    folder.mkdir()
    path = folder / "lockkit.prom"

    done = lockkit("metrics", "--textfile", str(path))

    assert done.stdout == ""
    assert "lockkit_store_up{" in path.read_text()
    assert list(folder.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_textfile_that_cannot_be_written_is_told(lockkit, tmp_path):
    done = lockkit("metrics", "--textfile", str(tmp_path / "none" / "lockkit.prom"))

    assert done.returncode == 78
    assert "cannot write" in done.stderr


def test_json_has_every_sample(lockkit):
    document = lockkit.json("metrics")

    assert document["schema"] == "lockkit.metrics/1"
    up = next(sample for sample in document["samples"] if sample["name"] == "lockkit_store_up")
    assert up["value"] == 1
    assert set(up["labels"]) == {"store", "namespace"}


def test_a_store_that_does_not_answer_is_in_the_metrics_and_in_the_exit_code(lockkit):
    done = lockkit("metrics", "--url", "redis://127.0.0.1:1")

    assert done.returncode == 69
    assert "} 0.0" in next(row for row in done.stdout.splitlines() if row.startswith("lockkit_store_up{"))
