"""The layer under the stores: the interface of a store, and what several stores do alike.

A store imports each piece from its own module. :mod:`lockkit.store.spi` is the interface, :mod:`lockkit.store.queue` the rule
of the queue, :mod:`lockkit.store.notes` the merging of notes and records.
"""
