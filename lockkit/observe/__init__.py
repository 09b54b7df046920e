"""Records of what happened: the journal of critical failures."""
