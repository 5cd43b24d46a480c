"""Draws each person's appearance at random: clothes, skin, hair and proportions."""

from dataclasses import dataclass

import numpy as np

from extract.synth.raster import PLAIN, Colour, Pattern

_SKIN: tuple[Colour, ...] = ((244, 208, 180), (228, 184, 148), (198, 146, 108), (150, 104, 72), (104, 70, 50))
_HAIR: tuple[Colour, ...] = ((30, 26, 26), (62, 44, 34), (110, 76, 46), (190, 152, 96), (150, 148, 150))
_TOPS: tuple[Colour, ...] = (
    (196, 62, 58), (58, 98, 168), (236, 232, 224), (62, 128, 92), (228, 178, 70), (120, 84, 150),
    (52, 56, 66), (146, 178, 204), (226, 132, 96), (110, 122, 84), (206, 150, 172), (32, 40, 72),
)  # fmt: skip
_BOTTOMS: tuple[Colour, ...] = (
    (48, 62, 96), (36, 38, 44), (94, 110, 146), (150, 134, 106), (112, 106, 100), (74, 70, 58), (196, 188, 172),
)  # fmt: skip
_SHOES: tuple[Colour, ...] = ((40, 36, 36), (224, 222, 218), (110, 72, 48), (70, 74, 84))


@dataclass(frozen=True)
class Look:
    """One person's appearance; `limb_scale` and `head_scale` scale the width of limbs and head (1 is average)."""

    skin: Colour
    hair: Colour
    top: Colour
    bottom: Colour
    shoes: Colour
    bag: Colour
    chair: Colour
    pattern: Pattern  # of the top
    limb_scale: float
    head_scale: float
    long_hair: bool
    long_sleeves: bool
    shorts: bool
    carries_bag: bool


def draw_look(rng: np.random.Generator) -> Look:
    """Draws a random look."""
    return Look(
        skin=_draw_colour(rng, _SKIN, 10),
        hair=_draw_colour(rng, _HAIR, 12),
        top=_draw_colour(rng, _TOPS, 22),
        bottom=_draw_colour(rng, _BOTTOMS, 16),
        shoes=_draw_colour(rng, _SHOES, 10),
        bag=_draw_colour(rng, _TOPS, 30),
        chair=_draw_colour(rng, _BOTTOMS, 30),
        pattern=_draw_pattern(rng),
        limb_scale=float(rng.uniform(0.86, 1.2)),
        head_scale=float(rng.uniform(0.92, 1.1)),
        long_hair=bool(rng.random() < 0.4),
        long_sleeves=bool(rng.random() < 0.6),
        shorts=bool(rng.random() < 0.15),
        carries_bag=bool(rng.random() < 0.25),
    )


def _draw_colour(rng: np.random.Generator, palette: tuple[Colour, ...], spread: float) -> Colour:
    """Draws a colour of the palette and varies each channel by about spread / 2."""
    base = palette[int(rng.integers(len(palette)))]
    red, green, blue = (float(v) for v in np.clip(np.asarray(base) + rng.normal(0, spread / 2, 3), 8, 250))
    return red, green, blue


def _draw_pattern(rng: np.random.Generator) -> Pattern:
    """Draws plain, horizontal stripes, vertical stripes or checks."""
    wave, strength = float(rng.uniform(90, 200)), float(rng.uniform(0.08, 0.3))
    kinds = (PLAIN, Pattern(wave, 0.0, strength), Pattern(0.0, wave, strength), Pattern(wave, wave, strength))
    return kinds[int(rng.choice(4, p=(0.4, 0.25, 0.15, 0.2)))]
