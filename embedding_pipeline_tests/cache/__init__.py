"""Tests of embedding_pipeline.cache."""
