"""Views of what happens and what happened: metrics, traces, journals and what is read from them, and recovery."""
