"""The part that both faces share, the synchronous one and that of asyncio.

What a lock decides before its first request, what a lease knows, and which locks may be taken together, stands here once. The faces add
the calls that wait, each in a file of the same name: ``lockkit/sync/locks.py`` and ``lockkit/aio/locks.py``, for instance.
"""
