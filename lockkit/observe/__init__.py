"""Views of the present and the past: metrics, traces, journals and their readers, and recovery."""
