"""The protocol, without I/O: generators that yield effects and are sent results.

One copy of the hard logic serves the thread driver, the asyncio driver and the simulation.
"""
