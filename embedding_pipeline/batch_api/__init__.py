"""Submissions to the Batch API: planned, sent, found again, collected."""
