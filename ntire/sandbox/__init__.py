"""Somebody else's code, run where it can reach nothing but what it needs."""
