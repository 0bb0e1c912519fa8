"""Deduplication against a plain model of what a copy is."""
