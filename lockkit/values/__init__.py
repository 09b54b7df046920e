"""Values and their rules: durations, sizes, names, secrets, who a process is, what happened."""
