"""Losses: what training minimises. One loss per file, named as in a recipe."""
