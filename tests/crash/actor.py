"""A process of its own that does what it is told, line by line: code in, JSON out."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback

from lockkit.lib.clock import SYSTEM
from lockkit.testing.shapes import SHAPES

NAME = "crash/lock"


def main() -> None:
    shapes = {shape.name: shape for shape in SHAPES}
    space: dict[str, object] = {
        "NAME": NAME, "os": os, "sys": sys, "threading": threading, "time": time, "boottime": SYSTEM.now,
        "url": sys.argv[1], "shape": shapes[sys.argv[2]],
    }  # fmt: skip
    exec("import lockkit; client = lockkit.connect(url)", space)
    for line in sys.stdin:
        try:
            space["result"] = None
            exec(json.loads(line), space)
            answer = {"result": space["result"]}
        except BaseException as error:
            if isinstance(error, SystemExit):
                raise
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
