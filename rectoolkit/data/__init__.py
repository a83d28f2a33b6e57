"""Interaction data: what it is, how it is read, split and generated. Torch-free.

``interactions`` the rows by user and a data set of them; ``splits`` parts held out at random; ``text`` the parser
of integer lines; ``adjacency`` and ``pairs`` what the lines of a format mean; ``formats`` their names;
``assemble`` files -> a data set; ``planted`` the generator; ``card`` and ``catalog`` names -> data sets; ``fetch``
a card's files downloaded.

``importing`` makes a data set of any table: ``sources`` (and ``lines``, those of text) read in pieces, ``columns``
chosen, ``rows`` cleaned, ``spool`` merged by user on disk, ``core`` the k-core, ``ids`` what the source calls its
rows, ``stored`` the parts as files, ``provenance`` what the card says of it all.
"""

from rectoolkit.data.card import Card
from rectoolkit.data.catalog import find_card, list_cards, load_dataset
from rectoolkit.data.ids import Ids
from rectoolkit.data.importing import import_data
from rectoolkit.data.interactions import Dataset, Interactions
from rectoolkit.data.provenance import Imported
from rectoolkit.data.splits import hold_out, with_validation

__all__ = [
    "Card",
    "Dataset",
    "Ids",
    "Imported",
    "Interactions",
    "find_card",
    "hold_out",
    "import_data",
    "list_cards",
    "load_dataset",
    "with_validation",
]
