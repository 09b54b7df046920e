"""The reach of locks from a container, as ``lockkit doctor`` says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockkit.values.containers import Container, detect, finding

IDENTITY = "         0          0 4294967295\n"
MOUNTS = """\
1 0 0:1 / / rw - overlay overlay rw
2 1 0:2 / /proc rw - proc proc rw
3 1 8:1 /srv/locks /locks rw - ext4 /dev/sda1 rw
"""


@pytest.fixture
def root(tmp_path):
    """The root of a container, as far as its marks go."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/1").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "proc/self/mountinfo").write_text(MOUNTS)
    (tmp_path / "proc/self/uid_map").write_text(IDENTITY)
    return tmp_path


def test_a_plain_host_is_no_container(root):
    (root / "proc/1/cgroup").write_text("0::/init.scope\n")

    assert detect(Path("/locks"), {}, root=root) is None


@pytest.mark.parametrize(
    "mark, environ, engine",
    [
        (".dockerenv", {}, "Docker"),
        ("run/.containerenv", {}, "Podman"),
        (None, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "Kubernetes"),
        (None, {"container": "systemd-nspawn"}, "systemd-nspawn"),
    ],
)
def test_engines_are_known_by_their_marks(root, mark, environ, engine):
    if mark:
        (root / mark).touch()

    seen = detect(Path("/locks/a"), environ, root=root)

    assert seen == Container(engine, False, "/locks", "ext4")


def test_engines_are_known_by_the_cgroup_of_the_first_process(root):
    (root / "proc/1/cgroup").write_text("11:memory:/kubepods/burstable/pod1\n")

    assert detect(None, {}, root=root).engine == "kubepods"


def test_users_that_the_host_numbers_otherwise_are_told(root):
    (root / ".dockerenv").touch()
    (root / "proc/self/uid_map").write_text("0 100000 65536\n")

    seen = detect(Path("/locks"), {}, root=root)

    assert seen.mapped
    assert "The host has other numbers" in finding(seen, "host", Path("/locks"), "0").message


def test_a_folder_of_the_container_itself_is_a_warning_with_the_recipe():
    told = finding(Container("Docker", False, "/", "overlay"), "user", Path("/root/lockkit"), "0")

    assert told.severity == "warning"
    assert (
        "The store lies in the container's own layer (/root/lockkit), so its locks reach no other container"
        in told.message
    )
    assert "Only user 0 shares it." in told.message
    assert "docker run -v /var/lib/lockkit:/var/lib/lockkit" in told.hint


def test_a_mounted_folder_reaches_what_else_has_it():
    told = finding(Container("Podman", False, "/locks", "ext4"), "host", Path("/locks/a"), "0")

    assert told.severity == "ok"
    assert "a mount, /locks (ext4, for /locks/a)" in told.message
    assert "Only users of the folder's group share it." in told.message


@pytest.mark.parametrize("scope, severity", [("fleet", "ok"), ("process", "warning"), ("user", "warning")])
def test_other_stores_reach_as_far_as_they_always_do(scope, severity):
    assert finding(Container("Docker"), scope, None, "0").severity == severity
