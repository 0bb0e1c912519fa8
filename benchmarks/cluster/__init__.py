"""A backfill over the workers of ``make cluster``, with what can go wrong in production.

Run with ``python -m benchmarks.cluster --scene calm`` (or another; ``--help`` lists them).
"""
