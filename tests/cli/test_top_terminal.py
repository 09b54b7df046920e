"""``lockkit top`` as a person has it: a process on a terminal, whose screen is read."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

import pyte
import pytest

pytest.importorskip("textual")

PATIENCE = 40.0


class Screen:
    """A terminal that shows what a program draws."""

    def __init__(self, tty, columns, rows):
        self.tty = tty
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.bytes = b""
        termios.tcsetwinsize(tty.fd, (rows, columns))

    @property
    def rows(self):
        return [row.rstrip() for row in self.screen.display]

    def until(self, words):
        """Read until the screen shows words."""
        end = time.monotonic() + PATIENCE
        os.set_blocking(self.tty.fd, False)
        while not any(words in row for row in self.rows):
            assert time.monotonic() < end, "\n".join(self.rows)
            try:
                self.feed(os.read(self.tty.fd, 65536))
            except BlockingIOError:
                time.sleep(0.01)
        os.set_blocking(self.tty.fd, True)

    def feed(self, data):
        self.bytes += data
        # Not known by pyte, which would print them: queries of the keyboard, and other private sequences.
        self.stream.feed(re.sub(rb"\x1b\[[<>=?][\d;]*(?:[a-gi-km-zA-Z$]|\$[a-z])", b"", data))

    def end(self):
        """Read to the end; the exit code."""
        code = self.tty.wait()
        self.bytes += self.tty.text.encode()
        return code


@pytest.fixture
def screen(lockkit, tty):
    def start(*args, columns=80, rows=24, **env):
        lockkit.env.pop("COLUMNS", None)
        lockkit.env.pop("LINES", None)  # the workers of pytest may have it
        lockkit.env.pop("NO_COLOR", None)
        script = 'stty rows "$1" cols "$2"; shift 2; exec "$@"'
        return Screen(
            tty("sh", "-c", script, "sh", rows, columns, *lockkit.line("top", *args), **env), columns, rows
        )

    return start


@pytest.mark.parametrize("columns, rows", [(80, 24), (200, 60)])
def test_it_fits_the_terminal_and_says_who_blocks_whom(lockkit, screen, columns, rows):
    lockkit.holder("nightly/job", "sleep", "--reason", "reindex")
    waiter = lockkit.start("run", "nightly/job", "--", "true")
    lockkit.until(lambda: len(lockkit.claims("nightly/job")) == 2)

    seen = screen(columns=columns, rows=rows)
    seen.until("1 claim waits")
    seen.until("for: reindex")
    seen.until("Quit")

    row = next(row for row in seen.rows if row.startswith("nightly/job "))
    assert re.match(r"nightly/job +held +1 +[\d.]+ (s|min) ", row)
    assert "Evict" in seen.rows[-1], "\n".join(seen.rows)
    assert "Quit" in seen.rows[-1], "the keys fit"
    seen.tty.type("q")
    assert seen.end() == 0
    waiter.send_signal(signal.SIGINT)


def test_the_keys_evict_a_holder_after_a_confirmation(lockkit, screen):
    holder = lockkit.holder("job", "sleep", "--ttl", "3s")
    seen = screen()
    seen.until("job ")
    seen.tty.type("e")
    seen.until("Evict claim")
    seen.until("The holder is told that its lock is lost.")
    seen.tty.type("hung\r")
    seen.until("Enter: evict.")
    seen.tty.type("\r")
    seen.until("stays blocked")
    _, errors = holder.communicate(timeout=PATIENCE)
    assert "hung" in errors


@pytest.mark.parametrize(
    "how, code", [("q", 0), ("\x03", 0), (signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_the_terminal_is_restored_whatever_ends_it(screen, how, code):
    seen = screen()
    before = termios.tcgetattr(seen.tty.fd)
    seen.until("Quit")
    assert termios.tcgetattr(seen.tty.fd) != before
    if isinstance(how, str):
        seen.tty.type(how)
    else:
        os.kill(seen.tty.pid, how)
    data = b""
    while True:  # the attributes can be read only as long as the other end is there
        try:
            data += os.read(seen.tty.fd, 65536)
        except OSError:
            break
    after = termios.tcgetattr(seen.tty.fd)
    seen.feed(data)
    assert os.waitstatus_to_exitcode(os.waitpid(seen.tty.pid, 0)[1]) == code
    assert after == before
    for on, off in (("?1049h", "?1049l"), ("?25l", "?25h"), ("?1000h", "?1000l"), ("?2004h", "?2004l")):
        assert seen.bytes.rfind(f"\x1b[{off}".encode()) > seen.bytes.rfind(f"\x1b[{on}".encode()), off


@pytest.mark.parametrize(
    "words, shown, code",
    [
        (["top"], b"Quit", 129),
        (["status", "--watch"], b"namespace default", 69),
        (["gpu", "ls", "--watch", "--gpu-sim", "2"], b"free", 69),
    ],
)
def test_a_terminal_that_vanishes_without_a_hang_up_ends_it(lockkit, words, shown, code):
    """The kernel sends SIGHUP to the terminal's session; runuser, sudo or a container may have left that."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    lockkit.env.pop("COLUMNS", None)
    process = subprocess.Popen(
        lockkit.line(*words),
        env=lockkit.env | {"TERM": "xterm"},
        cwd=lockkit.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    lockkit.started.append(process)
    os.close(theirs)
    seen = b""
    end = time.monotonic() + PATIENCE
    while shown not in seen:
        assert time.monotonic() < end, seen
        if select.select([ours], [], [], 0.1)[0]:
            seen += os.read(ours, 65536)

    os.close(ours)

    assert process.wait(PATIENCE) == code


def test_a_terminal_that_reads_nothing_does_not_keep_a_signal_from_ending_it(lockkit):
    """Like a screen behind a stalled connection: the kernel's buffer is full, so writers block."""
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    termios.tcsetwinsize(theirs, (900, 400))
    lockkit.env.pop("COLUMNS", None)
    process = subprocess.Popen(
        lockkit.line("top", "--interval", "1"),
        env=lockkit.env | {"TERM": "xterm"},
        cwd=lockkit.folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    lockkit.started.append(process)
    end = time.monotonic() + PATIENCE
    full = 0
    while full < 20:  # nothing can be written for two seconds
        assert time.monotonic() < end
        full = 0 if select.select([], [theirs], [], 0.1)[1] else full + 1
        time.sleep(0.1)

    process.send_signal(signal.SIGTERM)

    assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert termios.tcgetattr(theirs)[3] == before[3], "the terminal echoes again"
    os.close(ours)
    os.close(theirs)


def test_no_color_means_no_colour(lockkit, screen):
    lockkit.holder("job")
    seen = screen(NO_COLOR="1")
    seen.until("job ")
    seen.tty.type("q")
    assert seen.end() == 0
    codes = re.findall(rb"\x1b\[([\d;]*)m", seen.bytes)
    assert any(codes), "the cursor is told by other means"
    assert not [code for code in codes if _coloured(code)]


def _coloured(code):
    """Whether an SGR code sets a colour that is neither black, white nor grey."""
    parts = [int(one) for one in code.split(b";") if one]
    while parts:
        one = parts.pop(0)
        if one in (38, 48) and parts[:1] == [2]:
            if len(set(parts[1:4])) > 1:
                return True
            del parts[:4]
        elif one in (38, 48) or (one >= 30 and one % 10 in range(1, 7)):
            return True
    return False


def test_a_name_with_terminal_codes_and_markup_is_shown_escaped(lockkit, screen):
    lockkit.holder("job", "sleep", "--reason", "[red]x[/] is [b]")
    seen = screen()
    seen.until("[red]x[/] is [b]")


def test_without_a_terminal_it_is_refused_with_what_to_use(lockkit):
    done = lockkit("top", "job*", "--namespace", "n")
    assert done.returncode == 64
    assert "needs a terminal" in done.stderr
    assert "lockkit status 'job*' --watch --namespace n" in done.stderr
    assert not done.stdout


def test_on_a_dumb_terminal_and_with_json_too(lockkit, tty):
    terminal = tty(*lockkit.line("top"), TERM="dumb")
    assert terminal.wait() == 64
    assert "lockkit status --watch" in terminal.text
    done = lockkit("top", "--json")
    assert done.returncode == 64
    assert "--watch --json" in done.stderr


def test_without_textual_it_says_what_to_install(lockkit, tty):
    script = "import sys; sys.modules['textual'] = None; from lockkit.cli import script; script.main()"
    terminal = tty(sys.executable, "-c", script, "top")
    assert terminal.wait() == 69
    assert 'pip install "lockkit[top]"' in terminal.text


def test_an_error_at_the_start_is_told_without_taking_the_screen(lockkit, tty):
    terminal = tty(*lockkit.line("top", "--url", "redis://127.0.0.1:1?request_timeout=200ms"))
    assert terminal.wait() == 69
    assert "?1049h" not in terminal.text


def test_no_other_command_imports_textual(lockkit):
    code = (
        "import sys; from lockkit.cli import main; main.run(sys.argv[1:]); sys.exit('textual' in sys.modules)"
    )
    for words in (["status"], ["explain", "x"], ["run", "x", "--", "true"], ["top", "--help"]):
        assert (
            subprocess.run(
                [sys.executable, "-c", code, *words], env=lockkit.env, check=False, capture_output=True
            ).returncode
            == 0
        )
