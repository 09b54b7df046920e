"""Alerts: rules over events and stores, their grouping, escalation and silences, and the delivery of notifications."""
