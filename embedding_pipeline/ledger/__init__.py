"""Money: what was spent, for whom, on what, and what is in flight."""
