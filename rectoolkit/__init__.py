"""rectoolkit: graph recommenders whose embeddings are integer codes of 1 to 8 bits, ranked as packed codes."""

__version__ = "0.1.0"
