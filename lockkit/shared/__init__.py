"""The code that both faces, the synchronous one and that of asyncio, share.

The decisions of a lock before its first request, the facts of a lease, and the rules for taking locks
together are here. The faces add the calls that wait, each in a file of the same name, such as
``lockkit/sync/locks.py`` and ``lockkit/aio/locks.py``.
"""
