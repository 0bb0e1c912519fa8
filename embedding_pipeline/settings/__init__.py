"""Settings: one typed tree; the only reader of environment and settings files."""
