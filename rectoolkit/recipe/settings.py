"""The settings of a recipe's sections, which need neither the data's readers nor torch to be read and checked."""

from __future__ import annotations

FORMATS = ("adjacency", "pairs", "ratings")  # of files given by path; the data room has a reader for each
