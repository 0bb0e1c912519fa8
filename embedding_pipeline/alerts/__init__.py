"""Telling people what happened: each alert once, kept until it is delivered."""
