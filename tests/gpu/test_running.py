"""A process that runs already: what is read of it, and which ones are refused, with real processes."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lockkit.errors import ConfigError
from lockkit.gpu.running import RunningJob
from lockkit.values.identity import process_start, user_name
from support.sleeper import sleeping


@pytest.fixture
def sleeper():
    with sleeping() as process:
        yield process


def test_a_job_is_known_by_its_program_and_its_start_and_its_end_can_be_awaited(sleeper):
    with RunningJob(sleeper.pid) as job:
        assert (job.pid, job.program, job.started) == (sleeper.pid, "sleep", process_start(sleeper.pid))
        assert str(job) == f"{user_name()} pid {sleeper.pid} (sleep)"
        assert not job.ended()
        sleeper.kill()
        select.select([job], [], [])
        assert job.ended()
        sleeper.wait()
        assert job.ended()  # also once the pid may be another process's


@pytest.mark.parametrize("reaped", [False, True], ids=["zombie", "reaped"])
def test_a_process_that_has_ended_is_refused(sleeper, reaped):
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    if reaped:
        sleeper.wait()
    told = f"no process with pid {sleeper.pid} " if reaped else f"pid {sleeper.pid} has ended "
    with pytest.raises(ConfigError, match=f"{told}.*lockkit gpu ls"):
        RunningJob(sleeper.pid)


def test_a_thread_is_refused_with_the_pid_of_its_process():
    seen, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (seen.set(), over.wait()))
    thread.start()
    seen.wait()
    try:
        with pytest.raises(ConfigError, match=f"is a thread of pid {os.getpid()} .*name its process"):
            RunningJob(thread.native_id)
    finally:
        over.set()
        thread.join()


@pytest.mark.skipif(os.getuid() != 0, reason="only root starts processes of others")
def test_the_process_of_another_user_is_refused_unless_to_root(sleeper):
    with sleeping(user=65534) as theirs:
        with RunningJob(theirs.pid) as job:
            assert job.user == user_name(65534)
        told = _as(65534, sleeper.pid)
        assert f"pid {sleeper.pid} (sleep) belongs to another user (only {user_name(0)} can adopt it)" in told
        assert _as(65534, theirs.pid).strip() == "fine"


def _as(uid, pid):
    """Look at a process as another user, who may not read the files: with what is imported already."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(uid)
            try:
                RunningJob(pid)
                os.write(write, b"fine")
            except BaseException as error:
                os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        text = told.read()
    os.waitpid(child, 0)
    return text


def test_a_process_of_another_pid_namespace_is_refused():
    line = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", "input()"]
    if shutil.which("unshare") is None or subprocess.run([*line[:4], "true"], check=False).returncode:
        pytest.skip("needs the right to make a pid namespace")
    with subprocess.Popen(line, stdin=subprocess.PIPE) as outer:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        while not children.read_text().split():
            assert outer.poll() is None
        inside = int(children.read_text().split()[0])
        try:
            with pytest.raises(
                ConfigError, match=r"another pid namespace, .* where it has pid 1 .*in that container"
            ):
                RunningJob(inside)
        finally:
            outer.kill()


def test_a_kernel_without_pidfds_is_named(monkeypatch, sleeper):
    def missing(_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)
    with pytest.raises(ConfigError, match=r"pidfd_open: Function not implemented .*Linux 5\.3"):
        RunningJob(sleeper.pid)


def test_a_refused_process_leaves_no_descriptor_open(sleeper):
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    before = len([*Path("/proc/self/fd").iterdir()])
    with pytest.raises(ConfigError):
        RunningJob(sleeper.pid)
    assert len([*Path("/proc/self/fd").iterdir()]) == before
