"""Small mechanisms that know nothing of locks: clocks, bells, forks, named tuples, printable text."""
