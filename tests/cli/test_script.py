"""The end of the console script's process: all that the interpreter promises, without freeing the memory."""

import subprocess
import sys

import pytest

END = """
import atexit, os, signal, sys, threading
from lockkit.cli import script

def leave(code, leave=os._exit):
    os.write(1, b"left")
    leave(code)

os._exit = leave

def last():
    threading.main_thread().join()
    if interrupted:
        os.kill(os.getpid(), signal.SIGINT)
    print("thread")

interrupted = False
atexit.register(print, "atexit")
threading.Thread(target=last).start()
sys.argv[1:] = ["--version"]
script.main()
"""


def ended(*options, code=END):
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


def test_threads_end_and_exit_functions_run_before_the_process_is_left():
    done = ended()

    version, *rest = done.stdout.splitlines()
    assert version.startswith("lockkit ")
    assert rest == ["thread", "atexit", "left"]
    assert (done.returncode, done.stderr) == (0, "")


def test_the_exit_code_is_that_of_the_command():
    done = ended(code=END.replace('"--version"', '"no-such-command"'))

    assert done.stdout.splitlines() == ["thread", "atexit", "left"]
    assert done.returncode == 64


def test_in_development_mode_the_interpreter_ends_the_process():
    assert ended("-X", "dev").stdout.splitlines()[1:] == ["thread", "atexit"]


@pytest.mark.parametrize("_", range(3))
def test_a_ctrl_c_at_the_end_is_left_to_the_interpreter(_):
    done = ended(code=END.replace("interrupted = False", "interrupted = True"))

    assert sorted(done.stdout.splitlines()[1:3]) == ["atexit", "thread"]
    assert done.returncode == 0
