"""``python tests/bench``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # this folder is the package `bench`, beside `support`

from bench.command import main  # noqa: E402

sys.exit(main())
