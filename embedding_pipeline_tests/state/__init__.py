"""Tests of embedding_pipeline.state."""
