import os
import pickle
import pwd
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lockkit.config import places
from lockkit.facts import Owner
from lockkit.lib.forks import IMPORTS
from lockkit.values import identity


@pytest.fixture
def argv(monkeypatch):
    def use(first, spec=None):
        monkeypatch.setattr(sys, "argv", [first, "--password=secret"])
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec, raising=False)

    return use


def test_boot_id_is_the_kernels():
    assert identity.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_process_started_after_this_one_and_before_now():
    with subprocess.Popen(["sleep", "60"]) as child:
        started = identity.process_start(child.pid)
        child.kill()
    assert identity.process_start(os.getpid()) <= started
    assert started <= time.clock_gettime(time.CLOCK_BOOTTIME) + 0.01


def test_start_is_read_behind_a_hostile_command_name():
    # comm may hold spaces and parentheses: the fields are counted from the last ")".
    code = "import pathlib; pathlib.Path('/proc/self/comm').write_text('a) 1 (b'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        assert "(a) 1 (b)" in Path(f"/proc/{child.pid}/stat").read_text()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - identity.process_start(child.pid)
        child.kill()
    assert -0.01 <= age < 20


def test_no_process_has_no_start():
    with subprocess.Popen(["true"]) as child:
        pass
    assert identity.process_start(child.pid) is None


@pytest.mark.parametrize(
    "first, name",
    [
        ("train.py", "train.py"),
        ("/home/ann/jobs/train.py", "train.py"),
        ("-c", "python"),
        ("", "python"),
        ("-", "python"),
        ("/usr/bin/celery", "celery"),
        ("evil\x1b[31m\nname", "evil[31mname"),
        ("x" * 500, "x" * 64),
    ],
)
def test_program_is_a_bare_name(argv, first, name):
    argv(first)
    assert identity.program_name() == name


def test_program_of_python_m_is_the_module():
    code = "import lockkit.values.identity as i; print(i.program_name())"
    ran = subprocess.run(
        [sys.executable, "-m", "timeit", "-n1", "-r1", code], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[0] == "timeit"


def test_owner_names_this_process_and_none_of_its_arguments(argv):
    argv("/srv/train.py")
    owner = identity.this_process("task-1", program="/bin/sleep", environ={})
    assert (owner.pid, owner.host, owner.task, owner.program) == (
        os.getpid(),
        os.uname().nodename,
        "task-1",
        "sleep",
    )
    assert owner.boot_id == identity.boot_id()
    assert owner.started == identity.process_start(os.getpid())
    assert b"secret" not in pickle.dumps(owner)


def test_user_is_the_uid_where_there_is_no_name(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 3_000_000_000)
    assert identity.user_name() == "3000000000"


def test_no_fork_comes_between_while_the_user_is_looked_up(monkeypatch):
    """A child of such a fork would never be answered."""
    held, look_up = [], pwd.getpwuid
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: held.append(IMPORTS._is_owned()) or look_up(uid))
    identity.user_name()
    places.home_dir({})
    assert held == [True, True]


@pytest.mark.parametrize(
    "environ, pod",
    [
        ({}, None),
        ({"HOSTNAME": "box"}, None),
        ({"HOSTNAME": "web-5f-x", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "web-5f-x"),
        ({"HOSTNAME": "web-5f-x", "POD_NAME": "web-0"}, "web-0"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        ({"POD_NAME": "w" * 253}, "w" * 253),
        ({"HOSTNAME": "w" * 63, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
)
def test_pod(environ, pod):
    """A name that is cut would be that of another pod, or of none, which then looks as if it had ended."""
    assert identity.this_process(environ=environ).pod == pod


def test_the_namespace_and_the_node_of_a_pod():
    downward = {"POD_NAME": "web-0", "POD_NAMESPACE": "shop", "NODE_NAME": "node-3.example"}

    owner = identity.this_process(environ=downward)

    assert (owner.pod, owner.pod_namespace, owner.node) == ("web-0", "shop", "node-3.example")


def test_without_a_pod_the_variables_of_its_node_and_namespace_are_somebody_elses():
    owner = identity.this_process(environ={"NODE_NAME": "jenkins-agent-4", "POD_NAMESPACE": "shop"})

    assert (owner.pod, owner.pod_namespace, owner.node) == (None, None, None)


@pytest.mark.parametrize(
    "known, told",
    [
        ({}, "ann@box pid 7 (job)"),
        ({"pod": "box"}, "ann@box pid 7 (job)"),
        ({"pod": "web-0"}, "ann@box pid 7 (job) in pod web-0"),
        (
            {"pod": "box", "pod_namespace": "shop", "node": "node-3"},
            "ann@box pid 7 (job) in pod shop/box on node-3",
        ),
        ({"pod": "box", "node": "node-3"}, "ann@box pid 7 (job) on node-3"),
        ({"pod": "web-0\n", "node": "\x1b[31m"}, "ann@box pid 7 (job) in pod web-0\\n on \\x1b[31m"),
    ],
)
def test_an_owner_is_told_with_its_pod_and_node_where_they_say_more_than_the_host(known, told):
    assert str(Owner("ann", "box", 7, program="job", **known)) == told


def test_a_task_is_not_remembered_for_the_next_claim():
    assert identity.this_process("one").task == "one"
    assert identity.this_process().task is None


def test_a_forked_child_is_somebody_else():
    code = """
import os, sys
from lockkit.values.identity import this_process
mine = this_process()
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(write, str(this_process().pid).encode())
    os._exit(0)
os.waitpid(pid, 0)
print(int(os.read(read, 100)) == pid, mine.pid == os.getpid() == this_process().pid)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "True"]


def test_it_is_cheap_once_known():
    identity.this_process()
    start = time.thread_time()  # of the processor, because the machine may be busy
    for _ in range(1000):
        identity.this_process()
    assert time.thread_time() - start < 0.1
