"""What everything has cost so far: gathered, projected, advised on, and shown."""
