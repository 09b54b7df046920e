"""Private servers for lockkit's stores: on loopback, in a temporary folder, gone with their process.

``make servers`` installs the programs. A machine's own service is never touched.
"""
