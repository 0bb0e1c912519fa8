"""The life of a space."""
