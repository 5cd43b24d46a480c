"""Presets are valid configurations and are found by name."""

import pytest

from configs import presets
from configs.errors import ConfigError
from configs.presets import PRESETS, preset


@pytest.mark.parametrize("name", [item.name for item in PRESETS])
def test_every_preset_is_valid_documented_and_can_be_overridden(name: str) -> None:
    assert preset(name).config(epochs=7).epochs == 7
    assert preset(name).description
    assert f"stage2 run {name} " in str(presets.__doc__)


def test_an_unknown_preset_is_refused_with_the_known_ones_and_a_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"'fast'.*resnet18_frozen"):
        preset("fast")
    with pytest.raises(ConfigError, match=r"did you mean 'resnet18'\?"):
        preset("resnet19")
