"""``rectool bench``: search speed on this machine.

``vectors`` the vectors that are searched; ``exact`` the exact search beside other libraries, its ``contestants``;
``approximate`` inverted lists beside the exact search; ``report`` tables, a plot and JSON.
"""
