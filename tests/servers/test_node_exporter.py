"""The textfiles of `lockkit run` and `lockkit metrics`, read by a real node_exporter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lockkit.testing.processes import ServerMissing
from support.servers.node_exporter import NodeExporter


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "collector"
    folder.mkdir()
    return folder


@pytest.fixture
def exporter(folder):
    try:
        server = NodeExporter(folder)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture
def lockkit(tmp_path):
    environ = {key: value for key, value in os.environ.items() if not key.startswith("LOCKKIT_")}
    environ |= {"LOCKKIT_STATE_DIR": str(tmp_path / "state"), "LOCKKIT_CONFIG": "/dev/null"}
    (tmp_path / "state").mkdir(mode=0o700)

    def run(*words):
        line = [sys.executable, "-m", "lockkit", *map(str, words)]
        return subprocess.run(line, env=environ, capture_output=True, text=True, check=False, timeout=60)

    return run


def test_node_exporter_shows_the_runs_of_several_jobs_under_one_label_and_what_the_store_says(
    folder, exporter, lockkit
):
    """Both jobs have the label `other`; without the label `run`, node_exporter would refuse duplicates."""
    assert lockkit("run", "a", "--metrics-textfile", folder / "one.prom", "--", "true").returncode == 0
    assert lockkit("run", "b", "--metrics-textfile", folder / "two.prom", "--", "false").returncode == 1
    assert lockkit("metrics", "--textfile", folder / "store.prom").returncode == 0

    told = exporter.scrape()

    assert "node_textfile_scrape_error 0\n" in told
    assert 'lockkit_run_exit_code{lock="other",run="one"} 0\n' in told
    assert 'lockkit_run_exit_code{lock="other",run="two"} 1\n' in told
    assert "lockkit_store_up{" in told
