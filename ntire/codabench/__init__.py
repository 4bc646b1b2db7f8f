"""Competitions on Codabench and its predecessor CodaLab: bundles, their scoring program, and a worker to try them with."""
