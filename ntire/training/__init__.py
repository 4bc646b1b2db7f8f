"""Training: a report's recipe as data, and the loop that follows it on a user's images."""

from ntire.training.recipe import Recipe, Stage

__all__ = ["Recipe", "Stage"]
