"""The datasets, tried on real files: written, damaged, killed, read back."""
