"""The conformance kit."""

from harness import TemplateHarness

from lockkit.testing.kit import kit

test_template = kit(TemplateHarness)
