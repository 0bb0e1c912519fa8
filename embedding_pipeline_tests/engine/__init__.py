"""The engine as a whole, against the real HTTP fake: faults, kills, two at once."""
