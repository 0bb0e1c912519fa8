"""Sources, tried on real files and on every kind of damage."""
