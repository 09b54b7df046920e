"""Equipment of lockkit's own tests: the simulation, the mutants, private servers, the harnesses of lockkit's stores."""
