"""The process that made an object: a forked child is another one, whatever its pid or way of forking."""

from __future__ import annotations

import ctypes
import os
import sys
import threading

import pytest

import lockkit
from lockkit.lib import origin
from lockkit.lib.origin import Origin, this_origin
from lockkit.testing.children import in_child

NEW_PID_NAMESPACE = 0x20000000


@pytest.fixture(params=["wiped by the kernel", "not wiped by the kernel"])
def mine(request, monkeypatch):
    if request.param.startswith("not"):
        monkeypatch.setattr(origin, "_WIPE_ON_FORK", 4711)  # madvise(2) refuses it, as an older kernel does
        monkeypatch.setattr(origin, "_latest", Origin())
    return this_origin()


def test_it_is_that_of_all_that_this_process_makes(mine):
    assert mine.is_here()
    assert this_origin() is mine
    assert mine.pid == os.getpid()


@pytest.mark.parametrize("same_pid", [False, True])
def test_a_forked_child_has_another_and_so_has_its_child(mine, same_pid):
    def grandchild(of_child):
        return [mine.is_here(), of_child.is_here(), this_origin().is_here()]

    def child():
        own = this_origin()
        return [
            [mine.is_here(), own.is_here(), own is this_origin()],
            in_child(lambda: grandchild(own), same_pid=same_pid),
        ]

    assert in_child(child, same_pid=same_pid) == [[False, True, True], [False, False, True]]
    assert mine.is_here()


def test_threads_that_race_in_a_child_have_one(mine):
    def race():
        sys.setswitchinterval(1e-6)
        gate, got = threading.Barrier(8), []

        def ask():
            gate.wait(30)
            got.append(this_origin())

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return [len(got), len(set(got)), mine in got]

    assert all(in_child(race, same_pid=True) == [8, 1, False] for _ in range(20))


def test_a_child_that_c_code_forks_without_a_hook_of_python_has_another():
    mine = this_origin()
    reads, writes = os.pipe()
    # PyDLL keeps the interpreter's lock, so that the child has it.
    child = ctypes.PyDLL(None).fork()
    if child == 0:
        os.write(writes, b"%d" % mine.is_here())
        os._exit(0)
    os.close(writes)
    os.waitpid(child, 0)
    assert os.read(reads, 10) == b"0"
    os.close(reads)


def test_the_lease_of_the_first_process_of_a_container_is_none_of_its_child_in_a_container_of_its_own(
    tmp_path,
):
    """Both have pid 1 there. Needs the right to make a pid namespace."""

    def first_process():
        client = lockkit.connect(f"sqlite:{tmp_path}/locks.db")
        lease = client.lock("a").acquire()

        def sandboxed():
            return [
                os.getpid(),
                lease.valid(),
                lease.release().outcome,
                client.lock("a").try_acquire() is None,
            ]

        unshare()
        return [os.getpid(), in_child(sandboxed), lease.valid(), lease.release().outcome]

    def unshare():
        if ctypes.CDLL(None, use_errno=True).unshare(NEW_PID_NAMESPACE):
            raise PermissionError(ctypes.get_errno(), "unshare")

    def container():
        try:
            unshare()
        except PermissionError:
            return None
        return in_child(first_process)

    seen = in_child(container)
    if seen is None:
        pytest.skip("this user may make no pid namespace")
    assert seen == [1, [1, False, "KEPT", True], True, "RELEASED"]
