"""The commands, one in each file, as an attribute ``command``; :data:`lockkit.cli.main.COMMANDS` lists them."""
