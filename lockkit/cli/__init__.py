"""The command line: ``lockkit run`` and what operators need. One command a file, in ``commands/``."""
