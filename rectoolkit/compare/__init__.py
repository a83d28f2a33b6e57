"""Comparing recipes: the steps of ``rectool compare``, from top to bottom.

``plan`` loads the recipes and the data, and checks everything before anything runs. ``jobs`` makes the missing runs,
each in its own process. ``figures`` computes means, deviations and tests against a baseline. ``tables`` makes the table
for the terminal, Markdown and csv. ``report`` writes the files, with ``charts`` and ``page``.

A comparison keeps no state of its own: a run is finished if its folder is. After an interrupt the same command makes
the missing runs, resumes the unfinished ones, and gives the same table.
"""
