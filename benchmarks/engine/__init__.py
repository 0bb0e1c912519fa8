"""The engine against peers: CPU, speed under latency, memory. Run with ``make bench``."""
