"""`make house` fails if a part of the house has outgrown its limit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).parents[2] / ".ci/house"
ONE = "from __future__ import annotations\nfrom lockkit.two import two\n\n\ndef one():\n    return two\n"
TWO = "from lockkit import one\n\n\ndef two():\n    return one\n"


def test_a_part_that_is_above_its_limit_is_named(tmp_path):
    for folder in (".ci", "lockkit", "backends/lockkit_x", "tests"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(HOUSE, tmp_path / ".ci/house")
    (tmp_path / "lockkit/one.py").write_text(ONE)
    (tmp_path / "lockkit/two.py").write_text(TWO)
    (tmp_path / "backends/lockkit_x/__init__.py").write_text(f"# {'x' * 110}\n")
    (tmp_path / "tests/test_one.py").write_text("\n")
    found = {"entries": 2, "shipped": 12, "tests": 1, "longest-function": 2, "longest-file": 6}
    found |= {"files-in-circles": 2, "long-lines": 1, "lockkit_x": 1}
    for name in ("", *found):
        limits = [f"{each} = {value - (each == name)}\n" for each, value in found.items()]
        (tmp_path / "pyproject.toml").write_text("[tool.house]\n" + "".join(limits))
        done = subprocess.run(
            [sys.executable, tmp_path / ".ci/house"], check=False, capture_output=True, text=True
        )
        above = [line.split()[0] for line in done.stdout.splitlines() if line.endswith("ABOVE")]
        assert (done.returncode, above) == (int(bool(name)), [name] if name else []), done.stderr
