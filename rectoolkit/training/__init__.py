"""Training: the loop, its checkpoints, callbacks and memory."""
