"""Recipes, which describe runs: their settings, and the registries of components. Imports neither torch nor dgl."""

from rectoolkit.recipe.loading import Recipe

__all__ = ["Recipe"]
