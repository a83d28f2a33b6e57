"""Quantizers: real rows to integer codes, and the gradient that trains through them. One method per file."""
