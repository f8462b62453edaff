"""Units of measurement: which words are units, and how large they are, so that 5 cm is not 5 m."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

# Length, mass, time, angle in degrees, money in cents, and one letter for each of the rest. Prefixes are written out: few are in use.
_BASE: dict[str, tuple[str, str]] = {
    "m": ("1", "L"),
    "meter meters metre metres": ("1", "L"),
    "cm centimeter centimeters centimetre centimetres": ("1/100", "L"),
    "mm millimeter millimeters millimetre millimetres": ("1/1000", "L"),
    "dm decimeter decimeters": ("1/10", "L"),
    "km kilometer kilometers kilometre kilometres": ("1000", "L"),
    "in inch inches": ("127/5000", "L"),
    "ft foot feet": ("381/1250", "L"),
    "yd yard yards": ("1143/1250", "L"),
    "mi mile miles": ("1609344/1000", "L"),
    "g gram grams": ("1", "M"),
    "mg milligram milligrams": ("1/1000", "M"),
    "kg kilogram kilograms": ("1000", "M"),
    "lb lbs pound pounds": ("45359237/100000", "M"),
    "oz ounce ounces": ("45359237/1600000", "M"),
    "ton tons tonne tonnes": ("1000000", "M"),
    "s sec secs second seconds": ("1", "T"),
    "ms millisecond milliseconds": ("1/1000", "T"),
    "min mins minute minutes": ("60", "T"),
    "h hr hrs hour hours": ("3600", "T"),
    "day days": ("86400", "T"),
    "week weeks": ("604800", "T"),
    "month months": ("1", "months"),
    "year years yr yrs": ("12", "months"),
    "cent cents": ("1", "money"),
    "dollar dollars usd": ("100", "money"),
    "euro euros": ("1", "euro"),
    "yuan": ("1", "yuan"),
    "rupee rupees": ("1", "rupee"),
    "l liter liters litre litres": ("1/1000", "LLL"),
    "ml milliliter milliliters millilitre millilitres": ("1/1000000", "LLL"),
    "gallon gallons gal": ("1", "gallon"),
    "n newton newtons": ("1", "force"),
    "j joule joules": ("1", "energy"),
    "w watt watts": ("1", "power"),
    "pa pascal pascals": ("1", "pressure"),
    "v volt volts": ("1", "voltage"),
    "hz hertz": ("1", "frequency"),
    "mph": ("1609344/3600000", "L/T"),
    "kmh kph": ("1000/3600", "L/T"),
    "deg degree degrees": ("1", "angle"),
    "radian radians rad": ("1", "radians"),
    "unit units": ("1", ""),
    "sq square": ("1", ""),
    "cubic": ("1", ""),
}
TABLE: dict[str, tuple[Fraction, str]] = {
    name: (Fraction(factor), dimension) for names, (factor, dimension) in _BASE.items() for name in names.split()
}
AMBIGUOUS = frozenset("mghsnjwvl") | {"in", "a", "min", "day", "pa", "ms"}
"""Names that are units only where they are set as text: `5 m` may be five times m."""

SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
PART = re.compile(r"([a-z]+)\.?\s*(?:\^\s*\{?\s*(-?[0-9])\s*\}?|([0-9])(?![0-9]))?")
SQUARE = re.compile(r"\b(sq|square|cubic)\.?\s+([a-z]+)")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit's size in base units and its dimension, such as `L2` or `L1 T-1`; the empty dimension is a mere count."""

    factor: Fraction
    dimension: tuple[tuple[str, int], ...]


def is_unit(word: str) -> bool:
    """Return whether a word, in the middle of a formula, is the name of a unit and nothing else."""
    return word.lower() in TABLE and word.lower() not in AMBIGUOUS


def scale_and_unit(text: str) -> tuple[int, str]:
    """Take a word of number off a unit: `million dollars` is 1000000 and `dollars`."""
    word, _, rest = text.strip().partition(" ")
    scale = SCALES.get(word.lower())
    return (1, text) if scale is None else (scale, rest)


def parse_unit(text: str) -> Unit | None:
    """Read `cm^2`, `km/h`, `square inches`, `miles per hour`; None where a word is no unit."""
    text = text.lower().strip().rstrip(".").strip()
    text = SQUARE.sub(lambda found: f"{found[2]}^{3 if found[1] == 'cubic' else 2}", text)
    text = re.sub(r"\bper\b", "/", text)
    factor, dimension, sign = Fraction(1), {}, 1
    position = 0
    if not text or len(text) > 60:
        return None
    while position < len(text):
        if text[position] in " *\u00b7~":
            position += 1
            continue
        if text[position] == "/":
            sign, position = -1, position + 1
            continue
        found = PART.match(text, position)
        if found is None or found[1] not in TABLE:
            return None
        power = sign * int(found[2] or found[3] or 1)
        size, kind = TABLE[found[1]]
        factor *= size**power
        over, _, under = kind.partition("/")
        for part, direction in ((over, 1), (under, -1)):
            for base in part if set(part) <= set("LMT") else [part]:
                dimension[base] = dimension.get(base, 0) + direction * power
        position = found.end()
    return Unit(factor, tuple(sorted((base, power) for base, power in dimension.items() if base and power)))
