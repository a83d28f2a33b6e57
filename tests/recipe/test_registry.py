"""The registries: a settings class is the schema, and messages name the values that do not fit it."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from rectoolkit.errors import UserError
from rectoolkit.recipe.registry import REGISTRIES, ComponentSettings, Registry, encoders, quantizers

COMPONENTS = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry.names()]


class LampSettings(ComponentSettings):
    """A lamp."""

    watts: Annotated[int, Field(ge=1, le=100, description="power")] = 40
    colour: Annotated[Literal["red", "white"], Field(description="of the light")] = "white"


class Lamp:
    def __init__(self, graph: object, settings: LampSettings) -> None:
        self.graph, self.settings = graph, settings


@pytest.fixture
def things() -> Registry[Any]:
    registry: Registry[Any] = Registry("thing")
    registry.register("lamp", LampSettings)(Lamp)
    return registry


def test_defaults_are_filled_in(things: Registry[Any]) -> None:
    assert things.check("lamp", {"watts": 5}, "lamp") == ({"watts": 5, "colour": "white"}, [])


def test_every_fault_is_told_with_its_place_and_what_is_right(things: Registry[Any]) -> None:
    _, faults = things.check("lamp", {"wats": 5, "watts": 101, "colour": "blue"}, "lamp")
    told = {fault.where: fault.message for fault in faults}
    assert "did you mean 'watts'" in told["lamp.wats"]
    assert "100" in told["lamp.watts"]
    assert "101" in told["lamp.watts"]
    assert "'red' or 'white'" in told["lamp.colour"]


def test_types_are_taken_as_written(things: Registry[Any]) -> None:
    for wrong in ("5", 5.0, True):
        assert things.check("lamp", {"watts": wrong}, "lamp")[1], wrong


def test_a_component_is_built_from_its_settings_and_what_the_run_supplies(things: Registry[Any]) -> None:
    assert things.needs("lamp") == ["graph"]
    lamp = things.build("lamp", {"watts": 7}, {"graph": "g", "unused": 1})
    assert (lamp.graph, lamp.settings) == ("g", LampSettings(watts=7))
    with pytest.raises(UserError, match=r"'lamp' has a parameter graph, but a run supplies only: settings, train"):
        things.build("lamp", {}, {"train": None})
    assert things.settings({"name": "lamp", "watts": 8}) == LampSettings(watts=8)
    assert things.module("lamp") == __name__


def test_a_second_component_of_a_name_is_refused(things: Registry[Any]) -> None:
    class Other(Lamp):
        """Not the one that has the name."""

    class OtherSettings(LampSettings):
        """Nor these."""

    for cls, settings in ((Other, LampSettings), (Lamp, OtherSettings)):
        with pytest.raises(ValueError, match="'lamp' is already registered by"):
            things.register("lamp", settings)(cls)
    assert things.register("lamp", LampSettings)(Lamp) is Lamp


def test_a_built_in_name_is_not_taken_over() -> None:
    with pytest.raises(ValueError, match=r"'lightgcn' is already registered by rectoolkit\.model\.encoders\.lightgcn"):
        encoders.register("lightgcn", LampSettings)(Lamp)


def test_a_setting_without_default_and_a_component_without_settings_are_refused(things: Registry[Any]) -> None:
    class Needy(ComponentSettings):
        """A setting that must be written."""

        size: int

    with pytest.raises(TypeError, match="'size' needs a default"):
        things.register("bulb", Needy)(Lamp)

    class Bare:
        def __init__(self, graph: object) -> None: ...

    with pytest.raises(TypeError, match="needs the parameter 'settings'"):
        things.register("bare", LampSettings)(Bare)
    assert things.names() == ["lamp"]


def test_a_type_that_is_not_there_at_run_time_is_told_with_its_class(things: Registry[Any]) -> None:
    class Vague(ComponentSettings):
        """A setting whose type was imported for the type checker alone."""

        colour: NotImported = "red"  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match=r"Vague: name 'NotImported' is not defined; .* outside 'if TYPE_CHECKING'"):
        things.register("vague", Vague)(Lamp)


def test_an_unknown_name_gets_the_nearest(things: Registry[Any]) -> None:
    with pytest.raises(UserError, match="unknown thing 'lmap'; did you mean 'lamp'"):
        things["lmap"]


def test_settings_inherit_those_of_their_base_first_and_may_change_them(things: Registry[Any]) -> None:
    class LanternSettings(LampSettings):
        """A lantern."""

        colour: Literal["green"] = "green"
        height: float = 1.0

    @things.register("lantern", LanternSettings)
    class Lantern(Lamp):
        """Nothing of its own."""

    shown = [(name, info.default) for name, info in things.schema("lantern").model_fields.items()]
    assert shown == [("watts", 40), ("colour", "green"), ("height", 1.0)]
    assert things.needs("lantern") == ["graph"]
    assert things.build("lantern", {"height": 2.0}, {"graph": "g"}).settings.height == 2.0


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_every_setting_of_every_component_is_documented_and_can_be_written_in_toml(kind: str, name: str) -> None:
    schema = REGISTRIES[kind].schema(name)
    assert schema.__doc__, "the settings class needs a docstring: 'rectool list' prints its first line"
    for key, info in schema.model_fields.items():
        assert info.description, f"{key}: Field(description=...) is missing"
        assert info.default is not None, f"{key}: TOML has no None"


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_defaults_pass_their_own_bounds(kind: str, name: str) -> None:
    defaults = {key: info.default for key, info in REGISTRIES[kind].schema(name).model_fields.items()}
    assert REGISTRIES[kind].check(name, defaults, kind) == (defaults, [])


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_a_component_takes_the_settings_it_is_known_by(kind: str, name: str) -> None:
    registry = REGISTRIES[kind]
    schema, component = registry.schema(name), registry[name]
    assert component.__module__ == registry.module(name)
    assert registry.schema(name) is schema
    assert component.__doc__


def test_settings_are_read_without_importing_what_they_are_for() -> None:
    code = (
        "import sys\nfrom rectoolkit.recipe.registry import REGISTRIES\n"
        "for registry in REGISTRIES.values():\n"
        "    for name in registry.names():\n"
        "        registry.settings({'name': name}).reads()\n"
        "sys.exit(', '.join({'torch', 'dgl', 'numba', 'pandas', 'pyarrow'} & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_pairs_of_encoder_and_quantizer_that_are_refused() -> None:
    """Quantizers that scale layers one by one need concatenated layers: of ``ngcf``, or of ``lightgcn`` if asked."""
    refused = set()
    for encoder in encoders.names():
        for quantizer in quantizers.names():
            recipe = {
                "encoder": {"name": encoder, **encoders.check(encoder, {}, "encoder")[0]},
                "loss": {"name": "bpr"},
            }
            if quantizers.settings({"name": quantizer}).misfits(recipe):
                refused.add((encoder, quantizer))
    assert refused == {
        (encoder, by_layer) for encoder in ("mf", "lightgcn", "graphsage") for by_layer in ("bgch", "bigear")
    }
