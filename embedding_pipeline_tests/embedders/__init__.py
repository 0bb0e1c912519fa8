"""Tests of the embedders and their wrappers."""
