"""Real Celery workers for the tests: their own broker, and events by which a test follows its tasks."""
