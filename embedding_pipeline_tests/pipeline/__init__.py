"""The steps of the graph as plain calls on real files."""
