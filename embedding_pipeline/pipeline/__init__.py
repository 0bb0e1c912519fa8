"""The four steps of the graph as plain calls; an asset is one of these plus metadata."""
