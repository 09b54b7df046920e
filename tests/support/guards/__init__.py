"""Guards under test: holders that are paused at any request, and the updates that they lose."""

from support.guards.holders import FakeLease, Register, Turns, lost, lost_in_some_run, two_switches

__all__ = ["FakeLease", "Register", "Turns", "lost", "lost_in_some_run", "two_switches"]
