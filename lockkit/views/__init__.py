"""Looks at locks, GPUs and stores, and the JSON documents that show them: one copy for the command line and the server."""
