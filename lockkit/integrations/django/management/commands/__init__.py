"""One command in each module, by the name of the command."""
