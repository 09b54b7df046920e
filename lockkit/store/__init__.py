"""The layer under the stores: the interface of a store, and code that several stores share.

A store imports from these modules:

- :mod:`~lockkit.store.spi`: the interface, and its answers;
- :mod:`~lockkit.store.queue`: the rule of the queue, as functions; :mod:`~lockkit.store.rowqueue` and
  :mod:`~lockkit.store.rows`: all calls, for a store that decides in Python; :mod:`~lockkit.store.document`,
  :mod:`~lockkit.store.documents`: the same for a store that compares and swaps a document;
- :mod:`~lockkit.store.notes`, :mod:`~lockkit.store.owners`, :mod:`~lockkit.store.layouts`: the stored form
  of notes, records and owners, and the layout versions that may read them;
  :mod:`~lockkit.store.comparing`: changes by compare-and-swap;
- :mod:`~lockkit.store.perlock`, :mod:`~lockkit.store.tombstones`: values cached per lock, abandoned tokens;
- :mod:`~lockkit.store.ttls`: the nearest ttl that a store grants, and the words about it;
- :mod:`~lockkit.store.urls`, :mod:`~lockkit.store.certificates`: URLs of servers, and the TLS files that they
  name; :mod:`~lockkit.store.handshakes`: TLS handshakes that failed;
- :mod:`~lockkit.store.budgets`, :mod:`~lockkit.store.connecting`, :mod:`~lockkit.store.connections`: the
  rest of a budget, connecting within it, and a pool of connections; :mod:`~lockkit.store.inherited`: the
  refusal of a parent's store; :mod:`~lockkit.store.waking`: calling a waiter;
- :mod:`~lockkit.store.dangers`: what ``strict`` refuses, and the warnings about the rest;
- :mod:`~lockkit.store.exchanges`, :mod:`~lockkit.store.performing`: the frequent calls of a network store
  as generators without I/O, and blocking connections that perform them.
"""
