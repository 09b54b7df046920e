"""``lockkit demo``: real processes compete for one lock, and what they did is checked, not only shown."""
