"""The commands that errors and explanations suggest, run in a fresh shell: they use the same store."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from lockkit import connect
from lockkit.config.config import load
from lockkit.config.suggesting import HERE, same_store
from lockkit.errors import AcquireTimeout, CapacityMismatch

SUGGESTED = re.compile(r"(lockkit (?:explain|resize|status|failures show) .*?)\)?$", re.MULTILINE)


@pytest.fixture
def pasted(lockkit):
    """Paste the first command of a text into a shell that has no settings of its own."""

    def paste(text, **env):
        found = SUGGESTED.search(text)
        assert found, text
        program = shlex.join([sys.executable, "-m"])
        clean = {key: value for key, value in lockkit.env.items() if not key.startswith("LOCKKIT_")} | env
        done = subprocess.run(
            f"{program} {found[1]}",
            shell=True,
            cwd="/",
            env=clean,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, (found[1], done.stderr)
        return done.stdout

    return paste


@pytest.mark.parametrize("name", ["my job", "-x", "it's", "naïve $HOME `x`"])
def test_a_timeout_in_python_suggests_a_command_for_its_own_store(tmp_path, pasted, name):
    with connect(f"sqlite:{tmp_path}/a store.db", namespace="ci") as client:
        lease = client.lock(name).acquire()
        with pytest.raises(AcquireTimeout) as error:
            in_vain(client, name)
        told = pasted(str(error.value))
        lease.release()
    assert "is held by" in told
    assert "namespace ci" in told


def in_vain(client, name):
    """Wait for a name in vain, as another client: this thread would be told that it waits for itself."""
    with connect(client.config.url, namespace=client.namespace) as second:
        second.lock(name).acquire(timeout=0.05)


def test_a_store_in_a_state_folder_of_its_own_is_named_by_its_file(tmp_path, pasted):
    (tmp_path / "st").mkdir(mode=0o700)
    with connect(state_dir=str(tmp_path / "st")) as client, client.lock("x").acquire():
        second = connect(state_dir=str(tmp_path / "st"))
        with pytest.raises(AcquireTimeout) as error:
            second.lock("x").acquire(timeout=0.05)
        second.close()
        assert f"--url sqlite:{tmp_path}/st/lockkit.db x" in str(error.value)
        assert "is held by" in pasted(str(error.value))


def test_another_capacity_suggests_the_change(tmp_path, pasted):
    with connect(f"sqlite:{tmp_path}/s.db") as client, client.semaphore("x", 3).acquire():
        with pytest.raises(CapacityMismatch) as error:
            client.semaphore("x", 2).acquire(timeout=0.05)
        assert "2" in pasted(str(error.value))
        assert client.inspect("x").capacity == 2


def test_a_store_in_this_process_suggests_no_shell_command():
    with connect("memory://hints") as client, client.lock("x").acquire():
        second = connect("memory://hints")
        with pytest.raises(AcquireTimeout) as error:
            second.lock("x").acquire(timeout=0.05)
        second.close()
    assert "look with: client.inspect('x')" in str(error.value)
    assert "lockkit explain" not in str(error.value)


@pytest.mark.parametrize(
    "line",
    [
        ("run", "my job", "--no-wait", "--", "true"),
        ("run", "my job", "--timeout", "100ms", "--", "true"),
        ("acquire", "my job", "--ttl", "1m", "--no-wait"),
        ("acquire", "my job", "--ttl", "1m", "--timeout", "100ms"),
        ("wait", "my job", "--timeout", "100ms"),
        ("evict", "my job", "--claim", "0" * 12, "--reason", "r"),
    ],
    ids=lambda line: " ".join(line[::2]),
)
def test_a_command_suggests_one_for_its_own_store(lockkit, pasted, line):
    options = ("--url", f"sqlite:{lockkit.folder}/a store.db", "--namespace", "ci")
    assert lockkit("acquire", "my job", "--ttl", "1m", *options).returncode == 0
    failed = lockkit(line[0], *options, *line[1:])
    assert failed.returncode != 0
    assert "is held by" in pasted(failed.stderr)


def test_of_a_similar_name_the_same_store_is_named(lockkit, pasted):
    options = ("--url", f"sqlite:{lockkit.folder}/s.db", "--namespace", "ci")
    lockkit("acquire", "backup", "--ttl", "1m", *options)
    for command in "explain", "status":
        told = pasted(lockkit(command, "backpu", *options).stdout)
        assert "backup" in told
        assert "held" in told


# -- which options


def of(tmp_path, environ=None, toml="", **arguments):
    (tmp_path / "home/.config/lockkit").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    (tmp_path / "work/lockkit.toml").write_text(toml)
    config = load(
        environ={"HOME": str(tmp_path / "home"), **(environ or {})},
        cwd=tmp_path / "work",
        home=tmp_path / "home",
        etc=tmp_path / "etc.toml",
        **arguments,
    )
    return same_store(config)


def test_the_default_store_needs_no_options(tmp_path):
    assert of(tmp_path) == HERE


def test_what_the_environment_sets_is_repeated_because_another_shell_has_it_not(tmp_path):
    found = of(tmp_path, {"LOCKKIT_URL": "redis://h:1/2", "LOCKKIT_NAMESPACE": "ci"})
    assert found.options == " --url redis://h:1/2 --namespace ci"


def test_what_a_project_sets_is_repeated(tmp_path):
    assert of(tmp_path, toml='url = "redis://h"\n').options == " --url redis://h"


@pytest.mark.parametrize("name", ["config.toml", "lockkit.toml"])
def test_what_a_file_sets_that_the_environment_names_is_repeated(tmp_path, name):
    file = tmp_path / "srv" / name
    file.parent.mkdir()
    file.write_text('url = "redis://h"\n')
    assert of(tmp_path, {"LOCKKIT_CONFIG": str(file)}).options == " --url redis://h"


def test_what_a_file_below_xdg_config_home_sets_is_repeated(tmp_path):
    file = tmp_path / "xdg/lockkit/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('url = "redis://h"\n')
    assert of(tmp_path, {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}).options == " --url redis://h"


def test_the_default_store_below_xdg_state_home_is_named(tmp_path):
    found = of(tmp_path, {"XDG_STATE_HOME": str(tmp_path / "state")})
    assert found.options == f" --url sqlite:{tmp_path}/state/lockkit/lockkit.db"


def test_a_password_is_never_repeated(tmp_path):
    found = of(tmp_path, url="redis://:hunter2@h", namespace="ci")
    assert found.options == " --namespace ci"
    assert "LOCKKIT_URL" in found.first
    assert "hunter2" not in repr(found)


def test_a_profile_is_repeated(tmp_path):
    toml = '[profiles.gpu]\nurl = "redis://h"\n'
    assert of(tmp_path, toml=toml, profile="gpu").options == " --url redis://h --profile gpu"


def test_what_the_file_of_the_user_sets_is_not_repeated(tmp_path):
    file = tmp_path / "home/.config/lockkit/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('url = "redis://h"\n')
    (tmp_path / "work").mkdir()
    config = load(
        environ={"HOME": str(tmp_path / "home")},
        cwd=tmp_path / "work",
        home=tmp_path / "home",
        etc=tmp_path / "etc.toml",
    )
    assert config.url == "redis://h"
    assert same_store(config) == HERE


@pytest.mark.parametrize("name", ["0", "gpu:0", "gpu_lock:1", "GPU-9b6b8efe", "gpu/box"])
def test_a_free_name_that_looks_like_a_gpu_leads_to_the_gpus(lockkit, pasted, name):
    lockkit.env |= {"LOCKKIT_URL": f"sqlite:{lockkit.folder}/s.db", "LOCKKIT_GPU_HOST": "box"}
    for told in (
        lockkit("explain", name).stdout,
        lockkit("status", name).stdout,
        lockkit("wait", name).stderr,
    ):
        assert (
            "id you mean the GPUs of this host? lockkit gpu ls, and lockkit explain @pool/gpu%2Fbox" in told
        )
        assert "'@pool/gpu%2Fbox' is free" in pasted(told, LOCKKIT_URL=lockkit.env["LOCKKIT_URL"])


@pytest.mark.parametrize("name", ["gpu", "backup", "gpu-report", "build:0", "gpu/box/1"])
def test_other_free_names_lead_nowhere(lockkit, name):
    assert "GPUs of this host" not in lockkit("explain", name).stdout
