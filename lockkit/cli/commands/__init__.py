"""The commands: each file has one as its attribute ``command``. List: :data:`lockkit.cli.main.COMMANDS`."""
