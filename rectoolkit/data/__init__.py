"""Interaction data: what it is, how it is read, split and generated. Torch-free.

``interactions`` the rows by user and a data set of them; ``splits`` parts held out at random; ``text`` the parser
of integer lines; ``adjacency`` and ``pairs`` what the lines of a format mean; ``formats`` their names;
``assemble`` files -> a data set; ``planted`` the generator; ``catalog`` names (cards) -> data sets.
"""

from rectoolkit.data.catalog import Card, find_card, list_cards, load_dataset
from rectoolkit.data.interactions import Dataset, Interactions
from rectoolkit.data.splits import hold_out, with_validation

__all__ = ["Card", "Dataset", "Interactions", "find_card", "hold_out", "list_cards", "load_dataset", "with_validation"]
