"""Equipment of lockkit's own tests, which no user needs: the simulation, the mutants, the harnesses of lockkit's stores."""
