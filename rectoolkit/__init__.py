"""rectoolkit: graph recommenders whose embeddings are integer codes of 1 to 8 bits, ranked as packed codes.

The names below are the public API (docs/reference/python.md). Their modules are imported when a name is first used, so
``import rectoolkit`` takes no time and serving imports neither torch nor dgl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rectoolkit.data import Dataset, Interactions
    from rectoolkit.errors import DataError, FormatError, RecipeError, TrainingError, UserError
    from rectoolkit.recipe import Recipe
    from rectoolkit.runs.estimator import Estimator
    from rectoolkit.runs.execute import RunOptions
    from rectoolkit.runs.run import Run
    from rectoolkit.search.codes import CodeTable, PackedTable
    from rectoolkit.search.index import Hits
    from rectoolkit.search.inverted_lists import InvertedLists
    from rectoolkit.search.packed import Index

__all__ = [
    "CodeTable",
    "DataError",
    "Dataset",
    "Estimator",
    "FormatError",
    "Hits",
    "Index",
    "Interactions",
    "InvertedLists",
    "PackedTable",
    "Recipe",
    "RecipeError",
    "Run",
    "RunOptions",
    "TrainingError",
    "UserError",
    "__version__",
]

_MODULES = {
    "search.inverted_lists": ("InvertedLists",),
    "search.codes": ("CodeTable", "PackedTable"),
    "data": ("Dataset", "Interactions"),
    "errors": ("DataError", "FormatError", "RecipeError", "TrainingError", "UserError"),
    "runs.estimator": ("Estimator",),
    "runs.execute": ("RunOptions",),
    "search.index": ("Hits",),
    "search.packed": ("Index",),
    "recipe": ("Recipe",),
    "runs.run": ("Run",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            import importlib

            from rectoolkit.errors import needed

            with needed(f"rectoolkit.{name}"):
                return getattr(importlib.import_module(f"rectoolkit.{module}"), name)
    raise AttributeError(f"module 'rectoolkit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
