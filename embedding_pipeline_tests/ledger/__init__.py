"""Tests of embedding_pipeline.ledger."""
