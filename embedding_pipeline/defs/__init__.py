"""The graph as Dagster sees it: thin definitions around the plain calls of ``pipeline``."""
