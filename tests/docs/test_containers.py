"""docs/howto/containers.md, tried in namespaces of Linux as container engines use them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lockkit
from support.holders import AT_ONCE

LOCKKIT = f"{sys.executable} -m lockkit"


def can(*options):
    """Whether this machine lets us make such namespaces."""
    done = subprocess.run(["unshare", *options, "true"], capture_output=True, check=False)
    return done.returncode == 0


try:
    CONTAINERS = can("--mount", "--uts", "--pid", "--fork", "--mount-proc")
    USERS = can("--user", "--map-user=12345")
except FileNotFoundError:
    CONTAINERS = USERS = False

contained = pytest.mark.skipif(not CONTAINERS, reason="may not make namespaces")


@pytest.fixture
def environ(tmp_path):
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("LOCKKIT_", "XDG_"))}
    return clean | {"HOME": str(tmp_path / "home"), "LOCKKIT_CONFIG": "/dev/null"}


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def shared(tmp_path):
    """A folder that is mounted into every container."""
    folder = tmp_path / "locks"
    folder.mkdir(mode=0o700)
    return f"sqlite:{folder}/locks.db"


@pytest.fixture
def container(started, environ, home):
    """Run a shell command with its own processes, mounts and host name, and its home on its own tmpfs."""

    def run(script, name="box", **variables):
        setup = f"hostname {name}; mount -t tmpfs tmpfs {home}; exec {script}"
        return started(
            *("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("sh", "-c", setup),
            env=environ | variables,
            start_new_session=True,
        )

    return run


def said(process, code=0):
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    return out, err


@contained
def test_two_containers_with_homes_of_their_own_are_both_let_in(container):
    first = container(f"{LOCKKIT} run job -- sh -c 'echo in; exec sleep 60'")
    assert first.stdout.readline() == "in\n"

    second = container(f"{LOCKKIT} run job --no-wait -- echo in too")

    assert said(second)[0] == "in too\n"


@contained
def test_a_shared_folder_keeps_them_apart_and_a_death_frees_the_lock_at_once(container, shared):
    first = container(
        f"{LOCKKIT} run job -- sh -c 'echo in; exec sleep 60'", name="4f2a9c1b", LOCKKIT_URL=shared
    )
    assert first.stdout.readline() == "in\n"

    busy = container(f"{LOCKKIT} run job --no-wait -- true", LOCKKIT_URL=shared)
    assert re.search(r"held by \w+@4f2a9c1b pid 1 \(sh\)", said(busy, 75)[1])
    with lockkit.connect(shared) as client:
        (holder,) = client.inspect("job").holders
        assert holder.alive
        first.kill()  # and with it, by --kill-child, all that is in the container
        began = time.monotonic()
        client.lock("job").acquire(timeout=40).release()
        assert time.monotonic() - began < AT_ONCE


@contained
def test_a_read_only_root_is_an_error_that_says_what_to_set(container, home):
    fixed = f"mount -o remount,ro {home} && exec {LOCKKIT} run job -- echo in"
    hidden = "mount -t tmpfs -o ro tmpfs /var/tmp"

    refused = container(f"sh -c '{hidden} && {fixed}'")
    out, err = said(refused, 69)
    assert out == ""
    assert "Read-only file system" in err
    assert "LOCKKIT_STATE_DIR" in err

    scratch = "mount -t tmpfs -o mode=700 tmpfs /mnt && export LOCKKIT_STATE_DIR=/mnt/lockkit"
    served = container(f"sh -c '{scratch} && {hidden} && {fixed}'")
    assert said(served)[0] == "in\n"


@pytest.mark.skipif(not USERS, reason="may not make user namespaces")
@pytest.mark.parametrize("home", [None, "/", "/proc/nowhere"])
def test_a_user_without_a_home_and_without_an_entry_uses_var_tmp_and_is_told(environ, home):
    del environ["HOME"]
    if home is not None:
        environ["HOME"] = home
    folder = Path("/var/tmp/lockkit-12345")
    assert not folder.exists()
    try:
        done = subprocess.run(
            ["unshare", "--user", "--map-user=12345", *LOCKKIT.split(), "run", "job", "--", "id", "-u"],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "12345\n"), done.stderr
        assert f"kept in {folder}" in done.stderr
        assert folder.is_dir()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_scope_fleet_refuses_the_embedded_store(environ, home):
    done = subprocess.run(
        [*LOCKKIT.split(), "run", "job", "--", "true"],
        env=environ | {"LOCKKIT_SCOPE": "fleet"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 78
    assert "'fleet'" in done.stderr


@contained
def test_as_the_first_process_run_passes_sigterm_on_and_releases(container, shared):
    script = 'trap "exit 7" TERM; echo up; while :; do sleep 0.05; done'
    first = container(f"{LOCKKIT} run job -- sh -c '{script}'", LOCKKIT_URL=shared)
    assert first.stdout.readline() == "up\n"
    inside = int(subprocess.run(["pgrep", "-P", str(first.pid)], capture_output=True, check=True).stdout)

    os.kill(inside, signal.SIGTERM)

    assert first.wait(40) == 7
    with lockkit.connect(shared) as client:
        assert client.inspect("job").claims == ()
