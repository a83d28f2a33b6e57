"""The star rule: a constructor's signature is the schema, and what does not fit it is refused by name."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from rectoolkit.errors import UserError
from rectoolkit.recipe.registry import REGISTRIES, Registry, settings_of

COMPONENTS = [(kind, name) for kind, registry in REGISTRIES.items() for name in registry.names()]


@pytest.fixture
def things() -> Registry[object]:
    registry: Registry[object] = Registry("thing", "rectoolkit.evaluation.metrics")

    @registry.register("lamp")
    class Lamp:
        def __init__(
            self,
            graph: object,
            *,
            watts: Annotated[int, Field(ge=1, le=100, description="power")] = 40,
            colour: Literal["red", "white"] = "white",
        ) -> None:
            self.graph, self.watts, self.colour = graph, watts, colour

    return registry


def test_defaults_are_filled_in(things: Registry[object]) -> None:
    assert things.check("lamp", {"watts": 5}, "lamp") == ({"watts": 5, "colour": "white"}, [])


def test_every_fault_is_told_with_its_place_and_what_is_right(things: Registry[object]) -> None:
    _, faults = things.check("lamp", {"wats": 5, "watts": 101, "colour": "blue"}, "lamp")
    told = {fault.where: fault.message for fault in faults}
    assert "did you mean 'watts'" in told["lamp.wats"]
    assert "100" in told["lamp.watts"]
    assert "101" in told["lamp.watts"]
    assert "'red' or 'white'" in told["lamp.colour"]


def test_types_are_taken_as_written(things: Registry[object]) -> None:
    for wrong in ("5", 5.0, True):
        assert things.check("lamp", {"watts": wrong}, "lamp")[1], wrong


def test_what_comes_before_the_star_comes_from_the_run(things: Registry[object]) -> None:
    assert things.needs("lamp") == ["graph"]
    lamp = things.build("lamp", {"watts": 7}, {"graph": "g", "unused": 1})
    assert (lamp.graph, lamp.watts) == ("g", 7)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="asks for graph"):
        things.build("lamp", {}, {"train": None})


def test_a_second_class_of_a_name_is_refused(things: Registry[object]) -> None:
    with pytest.raises(ValueError, match="already registered"):

        @things.register("lamp")
        class Other:
            def __init__(self) -> None: ...


def test_a_setting_without_default_is_refused(things: Registry[object]) -> None:
    with pytest.raises(TypeError, match="'size' needs a default"):

        @things.register("bulb")
        class Bulb:
            def __init__(self, *, size: int) -> None: ...


def test_an_unknown_name_gets_the_nearest(things: Registry[object]) -> None:
    with pytest.raises(UserError, match="unknown thing 'lmap'; did you mean 'lamp'"):
        things["lmap"]


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_every_setting_of_every_component_is_documented_and_can_be_written_in_toml(kind: str, name: str) -> None:
    component = REGISTRIES[kind][name]
    assert (component.__doc__ or "").strip(), "the class needs a docstring: 'rectool list' prints its first line"
    for setting in settings_of(REGISTRIES[kind].schema(name)):
        assert setting.meaning, f"{setting.name}: Field(description=...) is missing"
        assert setting.default is not None, f"{setting.name}: TOML has no None"


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_defaults_pass_their_own_bounds(kind: str, name: str) -> None:
    defaults = {s.name: s.default for s in settings_of(REGISTRIES[kind].schema(name))}
    assert REGISTRIES[kind].check(name, defaults, kind) == (defaults, [])


def test_settings_of_the_base_class_come_first_and_may_be_given_anew(things: Registry[object]) -> None:
    lamp = things["lamp"]

    @things.register("lantern")
    class Lantern(lamp):  # type: ignore[valid-type, misc]
        def __init__(
            self, graph: object, *, colour: Literal["green"] = "green", height: float = 1.0, **settings: object
        ) -> None:
            super().__init__(graph, **settings)
            self.colour, self.height = colour, height

    @things.register("candle")
    class Candle(lamp):  # type: ignore[valid-type, misc]
        """Nothing of its own."""

    shown = [(s.name, s.default) for s in settings_of(things.schema("lantern"))]
    assert shown == [("watts", 40), ("colour", "green"), ("height", 1.0)]
    assert things.needs("lantern") == ["graph"]
    built = things.build("lantern", {"watts": 7, "colour": "green", "height": 2.0}, {"graph": "g"})
    assert vars(built) == {"graph": "g", "watts": 7, "colour": "green", "height": 2.0}
    assert things.check("lantern", {"watts": 101}, "lamp")[1]
    assert settings_of(things.schema("candle")) == settings_of(things.schema("lamp"))
