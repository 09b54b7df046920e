"""Private servers of the kinds that lockkit has a store for: on loopback, in a temporary folder, gone with the process that started them.

``make servers`` installs the programs. A machine's own service is never touched.
"""
