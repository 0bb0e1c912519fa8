"""Tests of the history of costs."""
