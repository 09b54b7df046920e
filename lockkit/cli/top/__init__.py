"""``lockkit top``: a live screen of locks, GPUs and failures, drawn by textual. Nothing but the command ``top`` imports it."""
