"""The engine under every misfortune a seed can name: ``make simulate``."""
