"""Small mechanisms that know nothing of locks: clocks, bells, forks, named tuples, words that can be printed."""
