"""Training: a report's recipe as data, and the loop that follows it on a user's images."""

from ntire.method.recipe import Loss, OwnLoss, Recipe, Stage

__all__ = ["Loss", "OwnLoss", "Recipe", "Stage"]
