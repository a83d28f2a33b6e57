"""Runs: the folder that a recipe becomes, how it is made, found again, opened and exported."""
