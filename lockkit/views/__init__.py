"""Looks at locks, GPUs and stores, and their JSON documents, for the command line and the server."""
