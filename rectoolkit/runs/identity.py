"""The identity of a run: digests of everything it was made from, and whether a folder holds that run.

A run is made from its recipe, its interactions, the source of its plugins, and the files that its components read
besides the data (a teacher's embeddings). ``environment.json`` keeps a digest of each. Where the last items of each
line are held out for validation, it also keeps a digest of the order of the items. A folder that was begun on
something else is refused, never silently reused. A folder with damaged files does not hold a finished run, so the same
command makes the run again.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rectoolkit import __version__
from rectoolkit.errors import FormatError, UserError
from rectoolkit.files import file_digest, write_text
from rectoolkit.recipe.files import read_toml
from rectoolkit.recipe.registry import REGISTRIES
from rectoolkit.runs.layout import ENVIRONMENT, LAYOUT, RECIPE, check_layout, read_json
from rectoolkit.runs.run import is_whole
from rectoolkit.runs.split import held_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rectoolkit.data import Dataset
    from rectoolkit.recipe import Recipe


@dataclass(frozen=True)
class Identity:
    """Digests of all that a run is made from.

    ``plugins`` are by module. ``outside`` are the files that components read besides the data, by a name that does not
    depend on their place; the digest of a missing file is empty. ``order`` is that of the items in their lines where
    validation depends on it, else empty. ``teacher`` is that of the teacher's recipe, empty without one. ``sections``
    are all settings of the recipe, defaults included, which its digest leaves out.
    """

    recipe: str
    data: str
    plugins: Mapping[str, str]
    outside: Mapping[str, str]
    order: str
    teacher: str
    sections: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(
        cls, recipe: Recipe, dataset: Dataset, built: Recipe | None = None, teacher: Recipe | None = None
    ) -> Identity:
        """The identity of the run that a recipe describes now.

        ``built`` is the recipe with the folder of its teacher's run, ``teacher`` the teacher's recipe.
        """
        sources = {module: getattr(sys.modules.get(module), "__file__", None) for module in recipe.plugins}
        plugins = {module: digest_of(Path(source)) if source else "" for module, source in sources.items()}
        held = held_out(recipe.seed, recipe["train"], dataset) or {}
        files = {name: digest_of(path) for name, path in files_read(built or recipe).items()}
        taught_by = teacher.digest if teacher else ""
        return cls(recipe.digest, dataset.digest, plugins, files, held.get("order", ""), taught_by, recipe.sections)


def files_read(recipe: Recipe) -> dict[str, Path]:
    """The files that the components read besides the data, by a name that does not depend on their place."""
    files: dict[str, Path] = {}
    for kind, registry in REGISTRIES.items():
        files |= registry.settings(recipe[kind]).reads()
    return files


def is_finished(folder: Path, identity: Identity, dataset: Dataset) -> bool:
    """Whether the folder holds this run, finished and complete. Raises UserError if it was begun on something else."""
    return is_begun(folder, identity, dataset) and is_whole(folder)


def is_begun(folder: Path, identity: Identity, dataset: Dataset) -> bool:
    """Whether the folder is that of this run. Raises UserError if it was begun on something else.

    A file that components read and that is missing now does not count: a finished run does not need it.
    """
    if not (folder / ENVIRONMENT).exists():
        return False
    try:
        environment = read_json(folder / ENVIRONMENT)
    except FormatError:
        return False
    check_layout(folder)
    try:
        plugins, outside, order, taught_by = (environment[key] for key in ("plugins", "outside", "order", "teacher"))
        sections, _ = read_toml(folder / RECIPE)
        digests = environment["digest"], environment["data"]["digest"]
        begun = Identity(*digests, plugins, outside, order, taught_by, sections)
    except (UserError, KeyError, TypeError):
        return False
    if begun.data != identity.data:
        raise UserError(
            f"{folder}: this run was begun on other interactions of the data set '{dataset.name}' "
            f"(digest {begun.data[:12]}, now {identity.data[:12]}); move or delete the folder to start over"
        )
    if begun.order != identity.order:
        raise UserError(
            f"{folder}: this run was begun on train lines in another order, and train.held = 'last' splits by it; move "
            "or delete the folder to start over"
        )
    modules = [module for module, digest in identity.plugins.items() if begun.plugins.get(module) != digest]
    files = [name for name, digest in identity.outside.items() if digest and begun.outside.get(name) != digest]
    defaults = changed_defaults(begun.sections, identity.sections)
    taught = begun.teacher and identity.teacher and begun.teacher != identity.teacher
    if modules or files or defaults or taught or begun.recipe != identity.recipe:
        what = f"another default of {defaults[0]}" if defaults else "another recipe"
        what = "another recipe of its teacher" if taught else what
        what = f"another content of '{files[0]}'" if files else what
        what = f"another version of the plugin '{modules[0]}'" if modules else what
        raise UserError(f"{folder}: this run was begun with {what}; move or delete the folder to start over")
    return True


def changed_defaults(begun: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The settings that both recipes have with different values. A setting that only one of them has plays no part."""
    return [
        f"{section}.{key}"
        for section, settings in now.items()
        for key, value in settings.items()
        if begun.get(section, {}).get(key, value) != value
    ]


def describe(
    folder: Path, recipe: Recipe, identity: Identity, dataset: Dataset, device: str, threads: int | None
) -> None:
    """Write ``recipe.toml`` and ``environment.json``: enough to repeat the run. Resuming a run adds a session."""
    import torch

    quantizer = REGISTRIES["quantizer"].settings(recipe["quantizer"])
    session = {
        "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rectoolkit": __version__,
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in ("torch", "dgl", "numpy", "numba", "scikit-learn")},
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "threads": threads or torch.get_num_threads(),
        "device": device,
    }
    try:
        earlier = read_json(folder / ENVIRONMENT)["sessions"]
    except (FormatError, KeyError):
        earlier = []
    environment = {
        "layout": LAYOUT,
        "digest": identity.recipe,
        "plugins": identity.plugins,
        "outside": identity.outside,
        "order": identity.order,
        "teacher": identity.teacher,
        "bits": recipe["quantizer"].get("bits", 32),
        "mixes_dims": quantizer.mixes_dims(),
        "held_out": held_out(recipe.seed, recipe["train"], dataset),
        "data": {
            "name": dataset.name,
            "digest": dataset.digest,
            "summary": dataset.summary(),
            "user_ids": dataset.user_ids is not None,
            "item_ids": dataset.item_ids is not None,
        },
        "sessions": [*earlier, session],
    }
    write_text(folder / RECIPE, recipe.toml())
    write_text(folder / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def digest_of(path: Path) -> str:
    """The sha256 of a file in hex; empty if it cannot be read."""
    try:
        return file_digest(path)
    except UserError:
        return ""
