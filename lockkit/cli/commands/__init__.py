"""One command a file; each has an attribute ``command``, named in :data:`lockkit.cli.main.COMMANDS`."""
