"""Evaluation: ranking metrics, held-out users ranked through an index, and tests of significance. Torch-free."""
