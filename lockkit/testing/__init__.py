"""Tests of programs that lock (:mod:`lockkit.testing.clients`), and the conformance kit.

The kit is the promises of lockkit as a test suite that runs against anybody's store.

Write a :class:`~lockkit.testing.harness.Harness` for the store and run
``pytest --lockkit-kit package.module:Harness``, or put two lines into a test file of your own::

    from lockkit.testing.kit import kit
    test_store = kit(MyHarness)

Needs ``pip install "lockkit[testing]"``. Nothing here is imported by lockkit itself.
"""
