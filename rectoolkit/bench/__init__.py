"""``rectool bench``: search speed on this machine.

``vectors`` makes the vectors to search. ``exact`` compares exact search with other libraries, the ``contestants``.
``approximate`` compares inverted lists with exact search. ``report`` makes tables, a plot and JSON.
"""
