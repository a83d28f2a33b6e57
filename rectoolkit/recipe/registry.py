"""Registries: the components that a recipe may name, with their settings.

A component is two classes. Its *settings* class (pydantic) declares the settings that a recipe may contain: every field
has a type, bounds, a default and a description. This one class is the TOML schema, the help of ``rectool show``, the
reference page and the table of the contract tests, and reading it needs no torch. Its *implementation* is built from
what the run supplies (graph, generator, ...: see the base class of each kind) and from ``settings``::

    class WalkSettings(EncoderSettings):
        # a docstring: one line that describes the component
        steps: Annotated[int, Field(ge=1, description="length of a walk")] = 2

    @encoders.register("walk", WalkSettings)
    class Walk(Encoder):
        def forward(self): ...  # reads self.settings.steps

The built-in components are registered in the same way. Besides, ``announce`` makes their settings known before their
implementation is imported: the component of a name is in the module of that name.

Other components come from a module named by ``plugins = ["my_module"]`` in the recipe, or from an installed package
with an entry point in the group ``rectoolkit.plugins``.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import PydanticUndefinedAnnotation

from rectoolkit.errors import Fault, UserError, nearest
from rectoolkit.recipe.schema import Settings, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rectoolkit.data import Dataset

C = TypeVar("C")
Sections = Mapping[str, Mapping[str, Any]]  # the sections of a filled recipe, as ``misfits`` sees them
PLUGIN_GROUP = "rectoolkit.plugins"


class ComponentSettings(Settings):
    """Base class of the settings of components, with facts that are known before a component is built."""

    def misfits(self, recipe: Sections) -> list[Fault]:
        """The faults of a filled recipe whose other parts this component does not work with.

        A fault names the key to change and the nearest value that works.
        """
        return []

    def reads(self) -> dict[str, Path]:
        """The files that the component reads besides the data, by a name that does not depend on their place.

        Their content is part of the run's identity.
        """
        return {}

    def check_data(self, dataset: Dataset, held_out: Mapping[str, Any] | None) -> None:
        """Raise UserError if these files do not suit the data, or have seen the part that the run holds out."""


class Registry(Generic[C]):
    """Components of one kind (``encoder``, ``quantizer``, ``loss``, ``sampler`` or ``metric``) by name.

    ``module`` is imported at the first look-up: it registers the built-in components, or announces their settings.
    It may set ``bases``: a class must then derive from one of them.
    """

    def __init__(self, kind: str, module: str = "") -> None:
        self.kind = kind
        self._module = module
        self.bases: tuple[type[C], ...] = ()
        self._announced: set[str] = set()
        self._settings: dict[str, type[ComponentSettings]] = {}
        self._classes: dict[str, type[C]] = {}

    def announce(self, settings: Mapping[str, type[ComponentSettings]]) -> None:
        """Make built-in components known by their settings.

        The component of a name registers itself in the module of that name, which is imported when it is first built.
        """
        self._announced.update(settings)
        for name, schema in settings.items():
            self._declare(name, schema, self.module(name))

    def register(
        self, name: str, settings: type[ComponentSettings] = ComponentSettings
    ) -> Callable[[type[C]], type[C]]:
        """Class decorator: make the class known as ``name``, with its settings. A second one of that name raises."""

        def add(cls: type[C]) -> type[C]:
            try:
                settings.model_rebuild()
            except PydanticUndefinedAnnotation as error:
                raise TypeError(
                    f"{settings.__module__}.{settings.__qualname__}: {error.message}; types of settings are needed at "
                    "run time, so import them outside 'if TYPE_CHECKING'"
                ) from None
            if settings.model_fields and "settings" not in inspect.signature(cls).parameters:
                raise TypeError(f"{self.kind} '{name}': its constructor needs the parameter 'settings'")
            self._load_built_in()
            if self.bases and not (inspect.isclass(cls) and issubclass(cls, self.bases)):
                *others, last = (base.__name__ for base in self.bases)
                raise TypeError(f"{self.kind} '{name}': its class must derive from {', '.join(others)} or {last}")
            self._declare(name, settings, cls.__module__)
            known = self._classes.get(name)
            if known is not None and known.__qualname__ != cls.__qualname__:
                where = f"{known.__module__}.{known.__qualname__}"
                raise ValueError(f"{self.kind} '{name}' is already registered by {where}")
            self._classes[name] = cls
            return cls

        return add

    def _declare(self, name: str, settings: type[ComponentSettings], module: str) -> None:
        known = self._settings.get(name)
        if known is not None and (self.module(name), known.__qualname__) != (module, settings.__qualname__):
            raise ValueError(f"{self.kind} '{name}' is already registered by {self.module(name)}")
        for key, field in settings.model_fields.items():
            if field.is_required():
                raise TypeError(f"{self.kind} '{name}': setting '{key}' needs a default")
        self._settings[name] = settings

    def names(self) -> list[str]:
        """Every registered name, sorted."""
        self._load()
        return sorted(self._settings)

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._settings

    def schema(self, name: str) -> type[Any]:
        """The settings class of ``name``. Raises UserError for an unknown name."""
        self._load()
        if name not in self._settings:
            raise UserError(f"unknown {self.kind} '{name}'; {nearest(name, self.names())}")
        return self._settings[name]

    def check(self, name: str, written: dict[str, Any], where: str) -> tuple[dict[str, Any], list[Fault]]:
        """``written`` with every default filled in, and its faults at ``where.key``."""
        return fill(self.schema(name), written, where)

    def defaults(self, name: str) -> dict[str, Any]:
        """The default of every setting of ``name`` that has one."""
        fields = self.schema(name).model_fields
        return {key: field.default for key, field in fields.items() if not field.is_required()}

    def settings(self, section: Mapping[str, Any]) -> Any:
        """The settings object of a recipe's section: the component's ``name`` and valid values for its settings."""
        return self.schema(section["name"])(**{key: value for key, value in section.items() if key != "name"})

    def module(self, name: str) -> str:
        """The module that implements ``name``."""
        if name in self._announced:
            return f"{self._module.rpartition('.')[0]}.{name}"
        return self._classes[name].__module__

    def about(self, name: str) -> str:
        """A description of ``name``: the first line of the docstring of its settings, or else of its class."""
        schema = self.schema(name)
        described = self[name] if schema is ComponentSettings else schema
        return (described.__doc__ or "").strip().partition("\n")[0]

    def __getitem__(self, name: str) -> type[C]:
        """The implementation of ``name``, imported if it is a built-in. Raises UserError for an unknown name."""
        self.schema(name)
        if name not in self._classes:
            importlib.import_module(self.module(name))
        return self._classes[name]

    def needs(self, name: str) -> list[str]:
        """The names of the arguments that a run must supply to build ``name``."""
        return [need for need in inspect.signature(self[name]).parameters if need != "settings"]

    def build(self, name: str, written: Mapping[str, Any], supply: Mapping[str, Any]) -> C:
        """The component ``name`` with the settings ``written``; the rest it takes by name from ``supply``."""
        needs = self.needs(name)
        if missing := [need for need in needs if need not in supply]:
            raise UserError(
                f"the constructor of {self.kind} '{name}' has a parameter {', '.join(missing)}, but a run supplies "
                f"only: settings, {', '.join(supply)}"
            )
        component: Any = self[name]
        built: C = component(**{need: supply[need] for need in needs}, settings=self.schema(name)(**written))
        return built

    def _load(self) -> None:
        self._load_built_in()
        load_entry_points()

    def _load_built_in(self) -> None:
        if self._module:
            importlib.import_module(self._module)


@cache
def load_entry_points() -> None:
    """Import the installed packages that have an entry point in the group ``rectoolkit.plugins``."""
    for point in entry_points(group=PLUGIN_GROUP):
        try:
            point.load()
        except Exception as error:
            raise UserError(
                f"the installed plugin '{point.name}' ({point.value}) fails to import: {error!r}; "
                "fix it, or uninstall the package that it comes with"
            ) from error


def import_plugins(plugins: Sequence[str], faults: list[Fault], beside: Path | None = None) -> None:
    """Import modules from the working folder, else from ``beside``, else as ``python`` does. Adds their faults."""
    places = [Path.cwd(), *([beside.resolve()] if beside else [])] if plugins else []
    first = [str(place) for place in places]
    sys.path[:] = [*first, *(place for place in sys.path if place not in first)]
    for module in plugins:
        try:
            found = getattr(importlib.import_module(module), "__file__", None)
        except (Exception, SystemExit) as error:  # a user's module may raise anything
            absent = isinstance(error, ModuleNotFoundError) and error.name == module
            right = "; it must lie in the working folder or beside the recipe" if absent else ""
            faults.append(Fault("plugins", f"cannot import '{module}': {error!r}{right}"))
            continue
        meant = next((file for place in places if (file := place / f"{module}.py").is_file()), None)
        if found and meant and not meant.samefile(found):
            faults.append(Fault("plugins", f"'{module}' is {found} here, not {meant}; give one of them another name"))


encoders: Registry[Any] = Registry("encoder", "rectoolkit.model.encoders.settings")
quantizers: Registry[Any] = Registry("quantizer", "rectoolkit.model.quantizers.settings")
losses: Registry[Any] = Registry("loss", "rectoolkit.model.losses.settings")
samplers: Registry[Any] = Registry("sampler", "rectoolkit.model.samplers.settings")
metrics: Registry[Any] = Registry("metric", "rectoolkit.evaluation.metrics")
REGISTRIES: dict[str, Registry[Any]] = {r.kind: r for r in (encoders, quantizers, losses, samplers)}


def parse_metric(written: str, accuracy: bool = False) -> tuple[Any, int]:
    """The class and the cut-off of a metric written as ``name@k``.

    Raises UserError if the name is unknown, the cut-off is not a number from 1 to 999999, or the metric does not
    measure ``accuracy`` where that is asked for.
    """
    match = re.fullmatch(r"([^@]+)@([1-9][0-9]{0,5})", written)
    if match is None:
        raise UserError(f"metric '{written}' must read name@k with k from 1 to 999999, such as recall@20")
    name = match[1]
    if name not in metrics:
        allowed = [known for known in metrics.names() if metrics[known].accuracy or not accuracy]
        raise UserError(f"unknown metric '{name}'; {nearest(name, allowed)}")
    if accuracy and not metrics[name].accuracy:
        raise UserError(
            f"metric '{written}' does not measure accuracy; 'rectool evaluate RUN --metrics {written}' reports it"
        )
    return metrics[name], int(match[2])
