"""``lockkit top``: a live screen of locks, GPUs and failures, drawn by textual; only ``top`` imports it."""
