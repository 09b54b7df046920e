"""Two writers never share a row of stderr: threads, processes, any length; pipe, terminal, live line."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from lockkit.cli import rows

WRITERS = 6
MARKS = 40_400 + 16 * 30
"""The marks that a thread of a writer writes."""
WRITER = """
import logging, sys, threading
from lockkit.cli import logs, streams
streams.prepare()
letter, form = sys.argv[1:]
logs.keep()
logs.set_up(form)
log = logging.getLogger("lockkit.test")
sys.stdin.readline()  # until all are there

def write(thread):
    mark = letter + str(thread)
    for size in [10, 200, 3000, 4000, 4095, 4096, 5000, 20000] * 2:
        log.warning("%s", mark * (size // 2))
        if form == "text":
            print("printed", mark * 30, "in", "pieces", file=sys.stderr)

threads = [threading.Thread(target=write, args=(each,)) for each in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def written(form, stderr, read):
    """The output of many processes that write to one descriptor at the same time."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, letter, form], stdin=subprocess.PIPE, stderr=stderr, text=True
        )
        for letter in "abcdef"
    ]
    os.close(stderr)
    for one in started:
        one.stdin.write("go\n")
        one.stdin.flush()
    text = b""
    end = time.monotonic() + 60
    while select.select([read], [], [], max(end - time.monotonic(), 0))[0]:
        try:
            data = os.read(read, 700)
        except OSError:
            break
        if not data:
            break
        text += data
    assert [one.wait(timeout=40) for one in started] == [0] * WRITERS
    for one in started:
        one.stdin.close()
    os.close(read)
    return text.decode().replace("\r\n", "\n")


def check_text(text, *, whole):
    for row in text.splitlines():
        mark = re.search("[a-f][0-2]", row)
        assert mark is not None, row
        if row.startswith("printed"):
            assert row == f"printed {mark[0] * 30} in pieces"
        else:
            # A row of a pipe that was cut goes on in the next one, with two spaces before it.
            assert re.fullmatch(rf"(warning: |  )[0-2]?({mark[0]})+[a-f]?", row), row[:80]
    for mark in (f"{letter}{thread}" for letter in "abcdef" for thread in range(3)):
        # Nothing is missing. Marks may be cut in two, or made of two halves, at the end of a row.
        told = re.sub(r"^(warning: |  |printed )| in pieces$|\n", "", text, flags=re.MULTILINE)
        assert abs(told.count(mark) - MARKS) < 30
    if whole:
        assert text.count("warning: ") == len(
            [row for row in text.splitlines() if not row.startswith("printed")]
        )


@pytest.fixture
def pipe():
    """A pipe that is soon full, so that a long write is done in several steps."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    return write, read


def test_rows_of_text_in_one_pipe(pipe):
    text = written("text", *pipe)
    assert max(map(len, text.splitlines())) < 4096
    check_text(text, whole=False)


def test_documents_in_one_pipe(pipe):
    documents = [json.loads(row) for row in written("json", *pipe).splitlines()]
    assert len(documents) == 16 * 3 * WRITERS
    for one in documents:
        assert len(set(one["message"].replace(" [...] ", ""))) == 2
        assert (len(one["message"]) > 3900) == (" [...] " in one["message"]) or len(one["message"]) <= 4000


def test_rows_of_text_on_one_terminal():
    read, write = pty.openpty()
    check_text(written("text", write, read), whole=True)


def test_long_documents_in_a_file_are_whole(tmp_path):
    with (tmp_path / "log").open("ab") as file:
        program = [sys.executable, "-c", WRITER, "a", "json"]
        subprocess.run(program, input="go\n", text=True, stderr=file, check=True)
    documents = [json.loads(row) for row in (tmp_path / "log").read_text().splitlines()]
    assert {len(one["message"]) for one in documents} == {10, 200, 3000, 4000, 4094, 4096, 5000, 20000}


def test_a_name_is_never_shortened():
    read, write = os.pipe()
    with os.fdopen(read, "rb"), os.fdopen(write, "w") as stream:
        row = rows.document({"name": "n" * 3000, "holder": {"note": ["m" * 2000, "k" * 150]}}, stream)
    made = json.loads(row)
    assert len(row) < 4096
    assert made["name"] == "n" * 3000
    assert re.fullmatch(r"m+ \[\.\.\.\] m+", made["holder"]["note"][0])
    assert made["holder"]["note"][1] == "k" * 150


LIVE = """
import logging, sys
from lockkit.cli import logs, rows, streams
streams.prepare()
logs.keep()
logs.set_up("text")
rows.live("waiting for 'x': 1 s")
logging.getLogger("lockkit.test").warning("the store does not answer")
rows.live("waiting for 'x': 2 s")
print("one", "more", file=sys.stderr)
rows.finish()
print("the end", file=sys.stderr)
"""


def test_a_row_is_written_above_the_live_line():
    read, write = pty.openpty()
    subprocess.run([sys.executable, "-c", LIVE], stderr=write, check=True)
    os.close(write)
    text = os.read(read, 4096).decode()
    os.close(read)
    shown = [row.rpartition("\x1b[K")[2] for row in text.split("\r\n")]
    assert shown == [
        "warning: the store does not answer",
        "one more",
        "waiting for 'x': 2 s",
        "the end",
        "",
    ]


def test_a_reader_that_reads_nothing_does_not_stop_the_writer(pipe):
    write, read = pipe
    os.set_blocking(write, False)
    code = (
        "from lockkit.cli import streams; streams.prepare(); "
        "import sys; print('x' * 9000, file=sys.stderr); print('end')"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], stderr=write, stdout=subprocess.PIPE, check=True, timeout=20
    )
    assert (done.stdout, time.monotonic() - began < 10) == (b"end\n", True)
    os.close(read)
    os.close(write)


def test_runs_and_their_commands_share_one_pipe(lockkit):
    read, write = os.pipe()
    command = [
        "sh",
        "-c",
        'i=0; while [ $i -lt 200 ]; do echo "the command of $LOCKKIT_LEASE_FENCE"; i=$((i+1)); done >&2',
    ]
    runs = [
        subprocess.Popen(
            lockkit.line("run", "x", "--json", "--", *command),
            env=lockkit.env,
            cwd=lockkit.folder,
            stderr=write,
        )
        for _ in range(4)
    ]
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read().splitlines()
    assert [run.wait(timeout=40) for run in runs] == [0] * 4
    documents = [json.loads(row) for row in told if row.startswith("{")]
    assert {one["schema"] for one in documents} <= {"lockkit.waiting/1", "lockkit.log/1"}
    commands = [row for row in told if not row.startswith("{")]
    assert len(commands) == 4 * 200
    assert all(re.fullmatch(r"the command of \d+", row) for row in commands)
