"""Evaluation: ranking metrics, full ranking through an index, and tests of significance. Torch-free."""
