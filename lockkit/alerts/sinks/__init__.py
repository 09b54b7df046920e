"""The sinks that come with lockkit. A sink is a function of a notification, and may be an object that is called."""
