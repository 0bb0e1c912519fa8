"""Vectors that other tools have cached: reading their stores, and judging what is found."""
