"""Comparing recipes: the steps of ``rectool compare``, from top to bottom.

``plan`` the recipes and data, all checked before anything runs; ``jobs`` the missing runs, each in a process of its
own; ``figures`` means, deviations and tests against a baseline; ``tables`` the table for the terminal, Markdown and
csv; ``report`` the files, with ``charts`` and ``page``.

A comparison keeps no state of its own: a run is finished if its folder is. After an interrupt the same command makes
the missing runs, resumes the unfinished ones, and gives the same table.
"""
