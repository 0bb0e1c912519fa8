"""Tests of embedding_pipeline.planning."""
