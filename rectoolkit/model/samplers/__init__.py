"""Samplers: the train interactions as batches with negatives. One sampler per file, named as in a recipe."""
