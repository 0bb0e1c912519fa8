"""The cache of vectors by key: codec, tiers, and who is fetching what."""
