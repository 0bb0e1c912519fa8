"""The shared rate limit in real processes, against a server that enforces exact buckets."""
