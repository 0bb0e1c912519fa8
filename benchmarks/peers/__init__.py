"""Scenarios A to H for us and for others, each in an environment of its own: ``make bench``."""
