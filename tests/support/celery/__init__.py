"""Real Celery workers for the tests: a broker of their own, and events by which a test waits for what a task does."""
