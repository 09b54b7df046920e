"""The layer under the stores: the interface of a store, and what several stores do alike.

A store imports each piece from its own module:

- :mod:`~lockkit.store.spi`: the interface, and its answers;
- :mod:`~lockkit.store.queue`: the rule of the queue, as functions; :mod:`~lockkit.store.rowqueue` and
  :mod:`~lockkit.store.rows`: every call, for a store that decides in Python;
- :mod:`~lockkit.store.notes`, :mod:`~lockkit.store.owners`, :mod:`~lockkit.store.layouts`: what is stored beside a claim's place,
  and who may read it; :mod:`~lockkit.store.comparing`: changes by compare;
- :mod:`~lockkit.store.perlock`, :mod:`~lockkit.store.tombstones`: what a client remembers of locks and of tokens;
- :mod:`~lockkit.store.urls`, :mod:`~lockkit.store.certificates`: what a URL says; :mod:`~lockkit.store.handshakes`: TLS
  handshakes that failed;
- :mod:`~lockkit.store.budgets`, :mod:`~lockkit.store.connecting`, :mod:`~lockkit.store.connections`: what is left of a budget,
  connections in time, and a pool of them;
- :mod:`~lockkit.store.exchanges`, :mod:`~lockkit.store.performing`: the hot calls of a network store as generators without I/O, and
  blocking connections that perform them.
"""
