"""The forked processes of scenarios."""

import os

import pytest

from lockkit.testing.children import Child


def test_a_child_that_has_failed_says_why_when_it_is_told_something():
    def fail(parent):
        raise ZeroDivisionError("at its beginning")

    child = Child(fail)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(AssertionError, match="at its beginning"):
        child.tell("begin")
    child.close()
