"""Losses: the functions that training minimises. One loss per file, named as in a recipe."""
