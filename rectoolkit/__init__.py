"""rectoolkit: graph recommenders whose embeddings are integer codes of 1 to 8 bits, ranked as packed codes.

What most programs need stands here (docs/python_api.md); a name's module is imported when it is first used, so that
``import rectoolkit`` costs nothing and serving imports neither torch nor dgl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from rectoolkit.approximate import ApproximateIndex
    from rectoolkit.codes import CodeTable, PackedTable
    from rectoolkit.data import Dataset, Interactions
    from rectoolkit.errors import DataError, FormatError, RecipeError, TrainingError, UserError
    from rectoolkit.estimator import Estimator
    from rectoolkit.execute import Circumstances
    from rectoolkit.index import Hits, Index
    from rectoolkit.recipe import Recipe
    from rectoolkit.run import Run

__all__ = [
    "ApproximateIndex",
    "Circumstances",
    "CodeTable",
    "DataError",
    "Dataset",
    "Estimator",
    "FormatError",
    "Hits",
    "Index",
    "Interactions",
    "PackedTable",
    "Recipe",
    "RecipeError",
    "Run",
    "TrainingError",
    "UserError",
    "__version__",
]

_MODULES = {
    "approximate": ("ApproximateIndex",),
    "codes": ("CodeTable", "PackedTable"),
    "data": ("Dataset", "Interactions"),
    "errors": ("DataError", "FormatError", "RecipeError", "TrainingError", "UserError"),
    "estimator": ("Estimator",),
    "execute": ("Circumstances",),
    "index": ("Hits", "Index"),
    "recipe": ("Recipe",),
    "run": ("Run",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            import importlib

            return getattr(importlib.import_module(f"rectoolkit.{module}"), name)
    raise AttributeError(f"module 'rectoolkit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
