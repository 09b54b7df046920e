"""Alerts: rules over events and stores, grouping, escalation and silences, and delivery of notifications."""
