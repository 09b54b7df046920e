"""``python -m lockkit.testing.bench``."""

from __future__ import annotations

import sys

from lockkit.testing.bench.command import main

sys.exit(main())
