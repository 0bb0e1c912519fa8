"""Chunking: documents split by tokens, rows gathered into Arrow batches, everything counted."""
