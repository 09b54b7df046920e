"""``lockkit demo``: real processes compete for one lock, and their history is shown and checked."""
