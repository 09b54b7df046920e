"""Drivers perform the protocol's effects and own the heartbeat; one for threads, one for asyncio."""
