"""Deduplication: which chunks are copies of another, decided from small keys alone."""
