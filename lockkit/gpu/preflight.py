"""The preflight of a card: a short computation in a child that sees only this card, with a known result.

lockkit itself never opens CUDA, which would keep memory on the card, and could not be closed. The child ends
with the computation, or is killed when its time is over.

A card is faulty only for what nothing else explains: a wrong result, a hardware error, or no result after a
small first one. Other failures (no memory, no card visible to the framework) only keep it from this request.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lockkit.errors import ConfigError
from lockkit.gpu.devices import Device
from lockkit.gpu.visible import cuda_knows, cuda_variables
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.values import durations

__all__ = ["LONGEST", "Preflight", "Verdict"]

_PROGRAM = Path(__file__).with_name("preflight_program.py")
_PROBE, _START, _COMPUTE = 60.0, 12.0, 10.0
"""Seconds for the first import of a framework, for a later one and CUDA's start, and to compute."""
LONGEST = _START + _COMPUTE
"""Seconds that a preflight takes at most."""
_FAULTS = (
    "ecc",
    "illegal memory access",
    "illegal instruction",
    "illegal address",
    "misaligned address",
    "hardware stack",
    "launch failure",
    "launch timed out",
    "nvlink",
    "contained",
)
"""Parts of CUDA's texts for errors that a card raises, and that a correct program cannot cause."""


class Verdict(NamedTuple):
    """The reason why a card did not pass.

    Attributes:
        why: The reason, in words.
        faulty: Whether the card itself is at fault.
    """

    why: str
    faulty: bool = False


class Preflight:
    """The preflight with the framework of one Python.

    Args:
        python: The interpreter.
        starts: Seconds for the import of the framework and the start of CUDA, slow even on healthy cards.
        computes: Seconds for the computation.
    """

    def __init__(self, python: str, *, starts: float = _START, computes: float = _COMPUTE) -> None:
        self._python = python
        self._starts = starts
        self._computes = computes
        self.framework = ""
        """The framework; "" before :meth:`probe`."""

    def probe(self) -> None:
        """Find a framework. Blocks until it was imported once, in a child process that sees no card.

        Raises:
            ConfigError: There is none; the error says what to install.
        """
        if self.framework:
            return
        try:
            lines = self._run("probe", {"CUDA_VISIBLE_DEVICES": ""}, [_PROBE, _PROBE])
        except OSError as error:
            raise ConfigError(
                f"{self._python} cannot be run for the preflight: {error.strerror}",
                hint="name the Python in which torch or cupy is installed: --preflight-python PATH",
            ) from error
        found = next((word for word, _ in lines if word in ("torch", "cupy")), None)
        if found is None:
            why = "; ".join(text for word, text in lines if word == "absent") or "it did not answer"
            raise ConfigError(
                printable(f"a preflight needs torch or cupy, which {self._python} cannot use: {why}"),
                hint="install one of them there, for example: pip install torch; "
                "or name the Python that has it: --preflight-python PATH",
            )
        self.framework = found

    def check(self, device: Device, until: float | None = None) -> Verdict | None:
        """Compute on a card. None if the result is right.

        Args:
            device: The card.
            until: The end of the request, by time.monotonic(); None for none. Silence by then is no fault.
        """
        if not cuda_knows((device,)):
            return Verdict("a preflight is for NVIDIA's cards")
        limits = [self._starts, self._computes]
        short = False
        if until is not None:
            left = max(until - time.monotonic(), 0.0)
            short = left < sum(limits)
            limits = [min(one, left) for one in limits]
        try:
            lines = dict(self._run(self.framework, cuda_variables((device,), by="uuid"), limits, until))
        except OSError as error:
            return Verdict(f"its preflight could not be started: {error.strerror}")
        if "fine" in lines:
            return None
        if "wrong" in lines:
            return Verdict("it computes wrong results", faulty=True)
        if "raised" in lines:
            told = lines["raised"]
            return Verdict(
                f"its preflight failed: {told}", faulty=any(one in told.lower() for one in _FAULTS)
            )
        if "absent" in lines:
            return Verdict(f"its preflight could not be done: {lines['absent']}")
        if "ended" in lines:
            return Verdict(f"its preflight was ended ({lines['ended']})")
        if short:
            return Verdict("there was no time for its preflight")
        if "ready" in lines:
            return Verdict(f"it did not compute within {durations.show(self._computes)}", faulty=True)
        return Verdict(f"{self.framework} and CUDA had not started within {durations.show(self._starts)}")

    def _run(
        self, word: str, variables: Mapping[str, str], limits: Sequence[float], until: float | None = None
    ) -> list[tuple[str, str]]:
        """Run the program. Returns its lines; the second limit starts at ``ready``. ``ended``: no answer."""
        process = subprocess.Popen(
            [self._python, str(_PROGRAM), word],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,  # its end tells the child that this process has ended
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the command, and would look like a failure here
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            return _lines(process, limits, until)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.stdin.close()
            process.stdout.close()
            with suppress(subprocess.TimeoutExpired):  # a driver that hangs may keep it
                process.wait(1.0)


def _lines(
    process: subprocess.Popen[bytes], limits: Sequence[float], until: float | None
) -> list[tuple[str, str]]:
    assert process.stdout is not None
    end = time.monotonic() + limits[0]
    text = b""
    found: list[tuple[str, str]] = []
    while True:
        end = end if until is None else min(end, until)
        ready = select.poll()  # not select(2), which knows no descriptor above 1023
        ready.register(process.stdout, select.POLLIN)
        if not ready.poll(max(end - time.monotonic(), 0.0) * 1000):
            return found
        data = os.read(process.stdout.fileno(), 4096)
        if not data:
            if all(word == "ready" for word, _ in found):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(1.0)
                found.append(("ended", f"exit code {process.returncode}"))
            return found
        text += data
        *whole, text = text.split(b"\n")
        for row in whole:
            word, _, rest = row.decode(errors="replace").partition(" ")
            found.append((word, printable(rest)))
            if word == "ready":
                end = time.monotonic() + limits[1]
