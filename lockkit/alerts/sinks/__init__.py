"""The sinks that come with lockkit. A sink is a function of a notification, or a callable object."""
