"""The set-up of one store for all users of a host: a folder that a group shares, and the administrator's file that names the store.

``planning`` decides what is to be done, from facts alone; ``facts`` collects the facts, ``doing`` does what was decided, and
``held`` finds out who holds locks in a store that is to be removed.
"""
