"""The life of a space: what is active, what is being built beside it, and when to switch."""
