"""Equipment of lockkit's own tests: simulation, mutants, private servers, and harnesses of its stores."""
