"""What a run folder belongs to, and whether it holds that run, whole.

A run is its recipe, the interactions it is trained and measured on, the source of its plugins, and the files outside
all of these that a component reads (a teacher's embeddings): a digest of each stands in ``environment.json``. Where the
last items of each line validate, so does one of the order of the lines. A folder begun on another state of any of them
is refused, never silently reused; a folder whose files are damaged is not finished, so that the same command makes it
again.

``finished_before`` answers the same command given twice without torch: the components' modules import torch, which
takes seconds, and are needed only to check and fill a recipe. ``environment.json`` remembers by which words (file,
overrides, source of the schemas) the run was asked for; the same words mean the same filled recipe, whose own digest,
data, files and plugins are then checked as always. A recipe with plugins is always checked in full.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rectoolkit import __version__
from rectoolkit.data.catalog import load_data
from rectoolkit.errors import FormatError, UserError
from rectoolkit.files import file_digest, write_text
from rectoolkit.recipe import Recipe
from rectoolkit.recipe.files import read_toml
from rectoolkit.recipe.registry import PLUGIN_GROUP, REGISTRIES
from rectoolkit.runs.layout import ENVIRONMENT, FOLD_IN, LAYOUT, RECIPE, read_json
from rectoolkit.runs.run import Run
from rectoolkit.runs.split import held_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rectoolkit.data import Dataset

PACKAGE = Path(__file__).parents[1]
SCHEMAS = ("recipe", "model/samplers", "model/encoders", "model/quantizers", "model/losses")  # what filling depends on
REMEMBERED = 8  # commands by which a run is known


@dataclass(frozen=True)
class Identity:
    """The digests that tell a run from every other: recipe, data, plugins by module, outside files by path.

    ``order`` is that of the items in their lines where validation depends on it, else empty.
    """

    recipe: str
    data: str
    plugins: Mapping[str, str]
    outside: Mapping[str, str]
    order: str = ""

    @classmethod
    def of(cls, recipe: Recipe, dataset: Dataset) -> Identity:
        """The identity of the run that ``recipe`` describes now."""
        sources = {module: getattr(sys.modules.get(module), "__file__", None) for module in recipe.plugins}
        plugins = {module: digest_of_file(Path(source)) if source else "" for module, source in sources.items()}
        files = {str(path): digest_of_file(path) for path in outside(recipe)}
        held = held_out(recipe.seed, recipe["train"], dataset) or {}
        return cls(recipe.digest, dataset.digest, plugins, files, held.get("order", ""))


def outside(recipe: Recipe) -> list[Path]:
    """The files that the recipe's components read and neither the recipe nor its data holds."""
    return [path for kind, registry in REGISTRIES.items() for path in registry.settings(recipe[kind]).reads()]


def is_finished(folder: Path, identity: Identity, dataset: Dataset) -> bool:
    """Whether the folder holds this run, whole. Raises UserError where it was begun on something else.

    A run whose files are cut short is not finished: it is made again from its checkpoint, or from the start.
    """
    if not is_begun(folder, identity, dataset):
        return False
    try:
        run = Run.open(folder)
        _ = run.users, run.items, run.seen, run.metrics, run.per_user(), run.float_rows(), run.user_ids, run.item_ids
        if (folder / FOLD_IN).exists():  # runs of an earlier release have none
            _ = run.fold_in
    except FormatError:
        return False
    return True


def is_begun(folder: Path, identity: Identity, dataset: Dataset) -> bool:
    """Whether the folder is that of this run. Raises UserError where it was begun on something else."""
    if not (folder / ENVIRONMENT).exists():
        return False
    try:
        environment = read_json(folder / ENVIRONMENT)
        layout, data = environment["layout"], environment["data"]["digest"]
        files, order = environment.get("outside", {}), environment.get("order", identity.order)  # an older one has none
        begun = Identity(environment["digest"], data, environment["plugins"], files, order)
    except (FormatError, KeyError, TypeError):
        return False
    if layout != LAYOUT:
        raise FormatError(f"{folder}: a run folder of layout {layout}, not {LAYOUT}; move or delete it to start over")
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
    plugins = [module for module, digest in identity.plugins.items() if begun.plugins.get(module) != digest]
    files = [path for path, digest in identity.outside.items() if begun.outside.get(path) != digest]
    if plugins or files or begun.recipe != identity.recipe:
        what = f"another content of '{files[0]}'" if files else "another recipe"
        what = f"another version of the plugin '{plugins[0]}'" if plugins else what
        raise UserError(f"{folder}: this run was begun with {what}; move or delete the folder to start over")
    return True


def describe(
    folder: Path, recipe: Recipe, identity: Identity, dataset: Dataset, device: str, threads: int | None
) -> None:
    """Write ``recipe.toml`` and ``environment.json``: enough to repeat the run. Resuming a run adds a session."""
    import torch

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
        "bits": recipe["quantizer"].get("bits", 32),
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


def finished_before(path: Path, overrides: Sequence[str], runs: Path) -> tuple[Run, list[str]] | None:
    """The finished run that the same command made before, and what was noted then; None where that is not sure."""
    asked = words(path, overrides)
    if not asked:
        return None
    for file in sorted(runs.glob(f"*-????????/{ENVIRONMENT}")):
        try:
            environment = read_json(file)
            if asked not in environment["asked"]:
                continue
            stored, _ = read_toml(file.parent / RECIPE)
            dataset = load_data(stored["dataset"])
            files = {path: digest_of_file(Path(path)) for path in environment.get("outside", {})}
            held = held_out(stored["seed"], stored["train"], dataset) or {}
            identity = Identity(Recipe.check(stored).digest, dataset.digest, {}, files, held.get("order", ""))
            if is_finished(file.parent, identity, dataset):
                return Run.open(file.parent), list(environment["asked"][asked])
        except (UserError, KeyError, TypeError):
            continue  # the long way says what is wrong
    return None


def words(path: Path, overrides: Sequence[str]) -> str:
    """A digest of what a command says: the recipe as written, its overrides, and the source that will fill it."""
    try:
        written, _ = read_toml(path)
    except UserError:
        return ""
    if written.get("plugins") or any(override.lstrip().startswith("plugins") for override in overrides):
        return ""
    sources = [file for name in SCHEMAS for file in (PACKAGE / name, *sorted((PACKAGE / name).glob("*.py")))]
    said = [
        json.dumps(written, sort_keys=True, default=str),
        *overrides,
        *(str(point) for point in sorted(entry_points(group=PLUGIN_GROUP))),
        *(digest_of_file(file) for file in sources if file.is_file()),
    ]
    return hashlib.sha256("\0".join(said).encode()).hexdigest()[:16]


def remember(folder: Path, asked: str, notes: Sequence[str]) -> None:
    """Write down that the run in ``folder`` is what the command of these ``words`` asks for."""
    if not asked:
        return
    environment = read_json(folder / ENVIRONMENT)
    known: Any = environment.get("asked", {})
    if asked not in known:
        environment["asked"] = {**dict([*known.items()][1 - REMEMBERED :]), asked: list(notes)}
        write_text(folder / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")


def digest_of_file(path: Path) -> str:
    """The sha256 of a file in hex, empty where it cannot be read."""
    try:
        return file_digest(path)
    except UserError:
        return ""
