"""Graph encoders: user and item embeddings from the train graph. One method per file, named as in a recipe."""
