"""Splitting and gathering: the bound holds, nothing is lost."""
