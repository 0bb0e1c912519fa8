"""Alerts: filed once, delivered to a real HTTP receiver, kept while it is down."""
