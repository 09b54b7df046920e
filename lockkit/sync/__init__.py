"""The synchronous face: a client, its locks and leases, and locks taken together."""
