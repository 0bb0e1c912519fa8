"""Embedders: texts in, one float32 matrix out. One method to implement; the rest wraps it."""
