"""Rate limits. In this version: how many requests may be out at once."""
