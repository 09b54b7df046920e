"""What happened, kept: the journal of critical failures."""
