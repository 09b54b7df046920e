"""The set-up of one store for all users of a host: a group's folder, and the administrator's file.

``planning`` decides on the steps, from facts alone; ``facts`` collects the facts, ``doing`` does the steps,
and ``held`` finds the holders in a store that is to be removed.
"""
