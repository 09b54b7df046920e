"""``python -m lockkit`` is ``lockkit``."""

from __future__ import annotations

from lockkit.cli.script import main

if __name__ == "__main__":
    main()
