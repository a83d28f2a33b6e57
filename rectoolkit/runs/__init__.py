"""Run folders: made from recipes, found again, opened and exported."""
