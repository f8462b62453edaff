"""When a result counts as the expected one: floats within a tolerance; lists, tuples and iterators by elements; the rest as in Python.

Expected values come from files, where a tuple is a list, a set is a list, and every key of a mapping is a text.
"""

import cmath
import itertools
import math
import numbers
from collections.abc import Iterator, Mapping, Set


def equal(result, expected, tolerance):
    """Whether `result` counts as `expected`; `tolerance` is relative and absolute."""
    if isinstance(expected, bool) or isinstance(result, bool) or expected is None or result is None:
        return type(result) is type(expected) and result == expected or _number_as_bool(result, expected)
    if isinstance(expected, numbers.Number) and isinstance(result, numbers.Number):
        return _close(result, expected, tolerance)
    if isinstance(expected, str) or isinstance(result, str):
        return type(result) is type(expected) and result == expected
    if isinstance(expected, Mapping):
        return isinstance(result, Mapping) and _equal_mappings(result, expected, tolerance)
    if isinstance(expected, Set) or isinstance(result, Set):
        return _equal_sets(result, expected)
    if isinstance(expected, (list, tuple)):
        return _equal_sequences(result, expected, tolerance)
    return type(result) is type(expected) and bool(result == expected)


def _number_as_bool(result, expected):
    # As in Python, where True == 1; but not 1.0000001.
    both = isinstance(result, (int, float)) and isinstance(expected, (int, float))
    return both and result == expected


def _close(result, expected, tolerance):
    if result == expected:
        return True
    if isinstance(result, int) and isinstance(expected, int):
        return False
    try:
        if isinstance(result, complex) or isinstance(expected, complex):
            return cmath.isclose(result, expected, rel_tol=tolerance, abs_tol=tolerance)
        result, expected = float(result), float(expected)
    except (OverflowError, TypeError, ValueError):
        return False
    return math.isclose(result, expected, rel_tol=tolerance, abs_tol=tolerance) or (math.isnan(result) and math.isnan(expected))


def _equal_mappings(result, expected, tolerance):
    if len(result) != len(expected):
        return False
    if expected and all(isinstance(key, str) for key in expected) and not all(isinstance(key, str) for key in result):
        named = {_key_text(key): value for key, value in result.items()}
        result = named if len(named) == len(expected) else result
    return all(key in result and equal(result[key], value, tolerance) for key, value in expected.items())


def _key_text(key):
    """How a JSON file spells a key."""
    return {True: "true", False: "false", None: "null"}.get(key, str(key)) if key is None or isinstance(key, bool) else str(key)


def _equal_sets(result, expected):
    if not isinstance(result, (Set, list, tuple)) or not isinstance(expected, (Set, list, tuple)) or len(result) != len(expected):
        return False
    if isinstance(expected, Set) and not isinstance(result, Set):
        return False
    try:
        return {_hashable(each) for each in result} == {_hashable(each) for each in expected}
    except TypeError:
        return False


def _hashable(value):
    return tuple(_hashable(each) for each in value) if isinstance(value, (list, tuple)) else value


def _equal_sequences(result, expected, tolerance):
    if isinstance(result, Iterator):
        result = list(itertools.islice(result, len(expected) + 1))
    elif hasattr(result, "tolist"):
        result = result.tolist()
    elif not isinstance(result, (list, tuple, range)) and type(result).__name__ not in ("deque", "dict_keys", "dict_values", "dict_items"):
        return False
    # `len` of an endless range raises; it is compared before anything is unrolled.
    return len(result) == len(expected) and all(equal(mine, theirs, tolerance) for mine, theirs in zip(result, expected, strict=True))
