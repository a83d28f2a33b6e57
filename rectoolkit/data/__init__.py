"""Interaction data: reading, importing, splitting, generating and finding it. Torch-free.

interactions    the set of (user, item) pairs        dataset     train, test and validation
ids             the source's ids of users and items  readers     files and frames -> rows
importing       rows -> a data set on disk           spool       rows sorted by user on disk
k_core, splits  filters and held-out parts           planted     generated data
card, catalog   data sets by name                    fetch       downloads
"""

from rectoolkit.data.card import Card, Imported
from rectoolkit.data.catalog import find_card, list_cards, load_dataset
from rectoolkit.data.dataset import Dataset
from rectoolkit.data.ids import Ids
from rectoolkit.data.importing import from_frame, import_data
from rectoolkit.data.interactions import Interactions
from rectoolkit.data.splits import hold_out, with_validation

__all__ = [
    "Card",
    "Dataset",
    "Ids",
    "Imported",
    "Interactions",
    "find_card",
    "from_frame",
    "hold_out",
    "import_data",
    "list_cards",
    "load_dataset",
    "with_validation",
]
