"""Timing a method by a stated protocol, in a process of its own, in turn with a baseline."""
