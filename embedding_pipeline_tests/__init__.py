"""Tests, mirroring the tree of the package. Nothing here leaves loopback."""
