"""The model: the graph, encoders, quantizers, losses and samplers, assembled from a recipe."""
