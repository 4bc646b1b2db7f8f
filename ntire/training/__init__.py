"""Training: a report's recipe as data, and the loop that follows it on a user's images."""

from ntire.method.recipe import STEADIED, Loss, OwnLoss, Part, Recipe, Stage
from ntire.method.schedule import Constant, Cosine, Steps, even_steps

__all__ = ["STEADIED", "Constant", "Cosine", "Loss", "OwnLoss", "Part", "Recipe", "Stage", "Steps", "even_steps"]
