"""Integrations: lockkit inside other frameworks, one package each. Each needs the extra of its name."""
