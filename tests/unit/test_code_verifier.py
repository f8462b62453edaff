"""The parts of the verifier `code` that need no sandbox: finding the program, reading tests, comparing results."""

from __future__ import annotations

import asyncio
import datetime
import math
from collections import Counter, OrderedDict, deque
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifiers.code_extraction import continues, defines, extract_code
from verifiers.code_reference import Asserts, Calls, Check, imports_of, names_to_define, read_tests
from verifiers.code_tests import Code
from verifiers.errors import BadOption, GoldError
from verifiers.harness import comparison, values
from verifiers.plain_calls import Opaque, plain_calls, read_answer, report_bytes
from verifiers.registry import build
from verifiers.stdio_comparison import same_output
from verifiers.testing import FixedResponse
from verifiers.types import Problem


def problem(tests: object) -> Problem:
    return Problem("p", ({"role": "user", "content": "…"},), {"tests": tests})


# Finding the program.


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("x = 1", "x = 1"),
        ("", None),
        ("```python\nx = 1\n```", "x = 1\n"),
        ("a\n```python\nx = 1\n```\nb\n```python\nx = 2\n```\nc", "x = 2\n"),
        ("```python\ndef f(): pass\n```\n```\n42\n```", "def f(): pass\n"),
        ("```\ndef g(): pass\n```\n```\ndef f(): pass\n```\n```python\nprint(f())\n```", "def f(): pass\n"),
        ("```bash\nls\n```", None),
        ("```python\nx = 1\n```\n```python\nx = ", "x = 1\n"),
        ("```python\nx = 1", "x = 1"),
        ("~~~python\nx = '```'\n~~~", "x = '```'\n"),
        ("````python\nx = '''\n```\n'''\n````", "x = '''\n```\n'''\n"),
        ("<think>```python\nx = 1\n```</think>x = 2", "\nx = 2"),
        ("- first\n  ```py\n  if x:\n    y\n  ```\n", "if x:\n  y\n"),
        ("```{.python}\nx = 1\n```", "x = 1\n"),
        ('def f():\n    """\n    ```\n    f()\n    ```\n    """\n', 'def f():\n    """\n    ```\n    f()\n    ```\n    """\n'),
    ],
)
def test_the_program_is_the_last_fenced_block_that_can_be_one(text: str, program: str | None) -> None:
    assert extract_code(text, ["f"]) == program


def test_what_defines_a_name_and_what_continues_a_function() -> None:
    assert defines("async def f(x):", "f") and defines("class Solution:\n    def two(self): pass", "two") and defines("f = max", "f")
    assert not defines("def fg(x): pass\nprint(f(1))\nif f == 1: pass", "f")
    assert (
        continues("\n\n    return 1\n")
        and continues("\treturn 1")
        and continues("# first\n    return 1")
        and not continues("return 1\n    x")
        and not continues("")
    )


@given(st.text(alphabet="`~ \npyx='\"#\t", max_size=200))
def test_extraction_never_fails_whatever_the_fences(text: str) -> None:
    found = extract_code(text, ["x"])
    assert found is None or isinstance(found, str)


# Reading tests.


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        (None, "the reference has no 'tests'"),
        ({"type": "doctest"}, "tests of the type 'doctest'; there are: asserts, check, calls, stdio, pytest"),
        ("{not json", "a text that is not JSON"),
        ({"type": "asserts", "asserts": []}, "need 'asserts' as a list that is not empty"),
        ({"type": "asserts", "asserts": [1]}, "'asserts' must be texts"),
        ({"type": "check", "code": "def check(c): pass"}, "need 'entry_point' as a text"),
        ({"type": "calls", "entry_point": "f", "cases": [{"args": [1]}]}, "a case needs 'args'"),
        ({"type": "calls", "entry_point": "f", "cases": [{"expected": 1}], "tolerance": 2}, "'tolerance' must be a number between 0 and 1"),
        ({"type": "stdio", "cases": [{"stdin": "1"}]}, "a case needs 'stdin' and 'stdout'"),
        ({"type": "pytest", "files": {}}, "need 'files'"),
    ],
)
def test_tests_that_cannot_be_read_are_an_error_of_the_gold(tests: object, message: str) -> None:
    with pytest.raises(GoldError, match=message):
        read_tests(problem(tests))


def test_a_list_and_json_text_are_read_as_well() -> None:
    assert read_tests(problem(["assert f(1) == 2"])) == Asserts(("assert f(1) == 2",), "", "")
    assert read_tests(problem('["assert f(1) == 2"]')) == Asserts(("assert f(1) == 2",), "", "")


def test_the_names_to_define_are_those_the_tests_call() -> None:
    assert names_to_define(Asserts(("assert set(f((1, 2))) == {1}",), "", "set")) == {"f"}
    assert names_to_define(Asserts(("assert sum(10, 15) == 6",), "", "sum")) == {"sum"}
    tests = read_tests(
        problem({"type": "pytest", "files": {"test_a.py": "import os\nfrom solution import (a,\n  b as c)\nfrom x import d"}})
    )
    assert names_to_define(tests) >= {"a", "b"} and "d" not in names_to_define(tests)


def test_imports_of_tests_are_found_and_nothing_else_is_executed() -> None:
    assert imports_of("import math\nfrom os import path\nx = 1\ndef f():\n    import sys") == "import math\nfrom os import path"
    assert imports_of("def (") == ""


# Plain calls.


@pytest.mark.parametrize(
    ("source", "right", "wrong"),
    [
        ("assert f(1, [2]) == (3, None)", (3, None), [3, None]),
        ("assert -1 == f('x')", -1, 1),
        ("assert f(k={'a': 1}) is None", None, 0),
        ("assert f(1) is True", True, 1),
        ("assert f(1)", 1, 0),
        ("assert not f(1), 'message'", 0, 1),
        ("assert f(2.5) == 0.1", 0.1, 0.10000001),
    ],
)
def test_assertions_on_one_call_are_compared_outside(source: str, right: object, wrong: object) -> None:
    (call,) = plain_calls(Asserts((source,), "", "f"), 1e-6)
    assert call.name == "f" and call.accepts(right) and not call.accepts(wrong) and not (call.accepts(Opaque()) and "==" in source)


@pytest.mark.parametrize(
    "source",
    [
        "assert abs(f(1) - 2) < 1e-6",
        "assert f(1) == f(2)",
        "assert f(x) == 1",
        "assert f(1).a == 2",
        "assert f(1) in (1, 2)",
        "assert f(*[1]) == 1",
        "assert (lambda: 1)() == 1",
        "assert set(f(1)) == {1}",
        "f(1)",
        "assert f(1) == 1; g()",
        "assert",
    ],
)
def test_other_assertions_go_to_the_examiner(source: str) -> None:
    assert plain_calls(Asserts((source,), "", "f"), 1e-6) is None


def test_a_built_in_is_called_as_itself_unless_it_is_what_is_asked_for() -> None:
    assert plain_calls(Asserts(("assert sum(10, 15) == 6",), "", "sum"), 0.0) is not None
    assert plain_calls(Asserts(("assert len([1]) == 1", "assert f(1) == 1"), "", "f"), 0.0) is None
    assert plain_calls(Asserts(("assert len([1]) == 1",), "", ""), 0.0) is None


def test_a_check_of_plain_assertions_is_plain_and_one_with_a_loop_is_not() -> None:
    plain = (
        "METADATA = {}\n\ndef check(candidate):\n    assert candidate(1) == 2\n    assert True, 'so far'\n    assert candidate(2) == 3\n"
    )
    calls = plain_calls(Check(plain + "check(f)\n", "f", ""), 0.0)
    assert [(call.name, call.args) for call in calls] == [("f", (1,)), ("f", (2,))]
    assert plain_calls(Check("def check(c):\n    for x in (1, 2):\n        assert c(x) == x", "f", ""), 0.0) is None
    assert plain_calls(Check("def check(c):\n    pass", "f", ""), 0.0) is None


def test_a_forged_answer_is_unreadable_or_plain_data() -> None:
    for line in ('{"value": {"k": "os.system", "v": "ls"}}', '{"value": {"k": "Fraction", "v": "1e999999999"}}', "[", "{}", "[" * 100_000):
        with pytest.raises(ValueError):
            read_answer(line)
    assert isinstance(read_answer('{"value": {"k": "handle", "v": null}}')[0], Opaque)
    assert read_answer('{"error": ["ValueError", "no"]}') == (None, "ValueError: no")


def test_results_that_cannot_be_compared_are_wrong_not_an_error() -> None:
    (call,) = plain_calls(
        Calls("f", read_tests(problem({"type": "calls", "entry_point": "f", "cases": [{"args": [], "expected": [1]}]})).cases, "", None),
        1e-6,
    )
    nested: list = []
    for _ in range(5000):
        nested = [nested]
    for result in (range(10**30), Decimal("sNaN"), nested, float("nan"), 10**5000, Opaque()):
        assert not call.accepts(result)


def test_the_room_for_a_report_grows_with_what_is_expected() -> None:
    cases = read_tests(problem({"type": "calls", "entry_point": "f", "cases": [{"args": [], "expected": "x" * 3_000_000}]}))
    assert report_bytes(plain_calls(cases, 0.0)) > 10_000_000 > 2_000_000 > report_bytes(())


# Values.

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.dates()
    | st.timedeltas()
    | st.just(range(2, 9, 3)),
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.lists(inner).map(deque) | st.dictionaries(st.integers() | st.text(), inner)
    ),
    max_leaves=20,
)


def refuse(value: object, kind: str) -> object:
    raise AssertionError(f"{value!r} is plain data")


@given(PLAIN | st.sets(st.integers()) | st.frozensets(st.text()) | st.integers().map(lambda n: n * 10**400))
def test_plain_data_comes_back_as_it_was(value: object) -> None:
    back = values.decode(values.encode(value, refuse), refuse)
    assert back == value and type(back) is type(value)


def test_values_of_subclasses_travel_as_what_they_are_underneath() -> None:
    class Liar(list):
        def __iter__(self):
            return iter([1, 2, 3])

        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None

    class Number(int):
        def __int__(self) -> int:
            return 7

    assert values.encode(Liar([9]), refuse) == [9]
    assert values.encode(Number(5), refuse) == 5
    for value in (Counter("aab"), OrderedDict(a=1), datetime.datetime(2026, 1, 2, 3), bytearray(b"x"), int, ..., Fraction(1, 3)):
        assert values.decode(values.encode(value, refuse), refuse) == value


# Comparing.


@pytest.mark.parametrize(
    ("result", "expected", "same"),
    [
        (1.0000001, 1.0, True),
        (1.001, 1.0, False),
        (1, 1.0, True),
        (1, 2, False),
        (10**20, 10**20 + 1, False),
        (True, 1, True),
        (True, 2, False),
        (None, 0, False),
        (None, None, True),
        ("1", 1, False),
        ((1, 2), [1, 2], True),
        ([1, 2], [2, 1], False),
        ({1, 2}, [2, 1], True),
        ([2, 1], {1, 2}, False),
        (iter([1, 2]), [1, 2], True),
        (iter([1, 2, 3]), [1, 2], False),
        (range(2), [0, 1], True),
        ({1: "a"}, {"1": "a"}, True),
        ({"a": [1.0000001]}, {"a": [1]}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        (float("nan"), math.nan, True),
        (float("inf"), math.inf, True),
        (1j, 1j, True),
        (deque([1]), [1], True),
        ("ab", ["a", "b"], False),
    ],
)
def test_results_are_compared_as_the_file_spells_them(result: object, expected: object, same: bool) -> None:
    assert comparison.equal(result, expected, 1e-5) is same


@pytest.mark.parametrize(
    ("stdout", "expected", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1 2 3", "1\n2\n3\n\n", True),
        ("1 2", "1 2 3", False),
        ("0.3333333", "0.33333333333", True),
        ("0.34", "0.33", False),
        ("5", "5.0", True),
        ("5", "6", False),
        ("100000000000000000001", "100000000000000000002", False),
        ("1e3", "1000.0", True),
        ("YES", "yes", False),
        ("nan", "nan", True),
        ("", "", True),
        ("x", "", False),
        ("1" * 400 + ".0", "1" * 400, False),
    ],
)
def test_outputs_are_compared_word_by_word(stdout: str, expected: str, same: bool) -> None:
    assert same_output(stdout, expected, 1e-6) is same


# Options.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "most"}, "reward='most' is none of all, share"),
        ({"test_seconds": 0}, "test_seconds=0 is not a number above 0"),
        ({"tolerance": 1.5}, "tolerance=1.5"),
        ({"sandbox": "local"}, "does not contain programs.*allow_unsafe"),
        ({"sandbox_options": {"num_wrokers": 2}}, "num_wrokers"),
        ({"sandbox_options": {"isolation": "none"}}, "isolation='none' is neither 'pool' nor 'job'"),
        ({"sandbox_options": {"num_workers": 0.5}}, "num_workers=0.5 is not a whole number of at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(BadOption, match=message):
        build("code", options)


def test_an_argument_that_is_no_plain_data_is_an_error_of_the_gold() -> None:
    tests = problem({"type": "calls", "entry_point": "f", "cases": [{"args": [object()], "expected": 1}]})
    with pytest.raises(GoldError, match="type object is not plain data"):
        asyncio.run(Code()(tests, [FixedResponse("def f(x): return 1")]))
