"""The command line: ``lockkit run`` and what operators need around it. One command a file, in ``commands/``."""
