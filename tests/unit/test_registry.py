from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

import rlvr.registries
import verifiers.registry
from verifiers.composite import Weighted
from verifiers.errors import BadOption, BrokenPlugin, UnknownName
from verifiers.exact_match import ExactMatch
from verifiers.format import Format
from verifiers.numeric import Numeric
from verifiers.registry import VERIFIERS, build
from verifiers.types import Problem, Response, Verdict


@pytest.mark.parametrize(
    ("name", "built_in"), [("exact_match", ExactMatch), ("numeric", Numeric), ("format", Format), ("weighted", Weighted)]
)
def test_a_built_in_verifier_is_registered_like_any_plugin(name: str, built_in: type) -> None:
    assert name in VERIFIERS.names()
    assert VERIFIERS.get(name) is built_in


def test_the_verifiers_registry_is_one_object() -> None:
    assert rlvr.registries.VERIFIERS is verifiers.registry.VERIFIERS


def test_each_registry_of_rlvr_has_its_own_group() -> None:
    registries = [getattr(rlvr.registries, name) for name in ("ADVANTAGES", "ENGINES", "LOSSES", "SANDBOXES", "SUITES", "VERIFIERS")]
    groups = [registry.group for registry in registries]
    assert groups == ["rlvr.advantages", "rlvr.engines", "rlvr.losses", "rlvr.sandboxes", "rlvr.suites", "rlvr.verifiers"]


def test_a_dotted_path_works_where_a_name_does() -> None:
    assert VERIFIERS.get("verifiers.exact_match:ExactMatch") is ExactMatch
    assert VERIFIERS.get("verifiers.exact_match:ExactMatch.__init__") is ExactMatch.__init__


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("verifiers.exact_mach:ExactMatch", "no module 'verifiers.exact_mach'"),
        ("no_such_package.sub:Thing", "no module 'no_such_package'"),
        ("verifiers.exact_match:ExactMach", "no 'ExactMach', did you mean 'ExactMatch'"),
        (":ExactMatch", "not of the form package.module:name"),
        ("verifiers.exact_match:", "not of the form package.module:name"),
        ("verifiers.exact_match.ExactMatch", "a dotted path is written package.module:name"),
    ],
)
def test_a_wrong_path_says_which_part_is_wrong(path: str, complaint: str) -> None:
    with pytest.raises(UnknownName, match=complaint):
        VERIFIERS.get(path)


def test_a_module_that_lacks_a_dependency_is_broken_rather_than_unknown(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "needy_module.py").write_text("import no_such_dependency")
    with pytest.raises(BrokenPlugin, match="No module named 'no_such_dependency'"):
        VERIFIERS.get("needy_module:Thing")


async def a_function(problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
    return []


@dataclass(frozen=True)
class NeedsAnOption:
    path: str

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return []


class FailsToBuild:
    def __init__(self) -> None:
        raise OSError("no such model file")


class NotAVerifier:
    pass


class Synchronous:
    def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return []


class TakesAnything:
    def __init__(self, **options: object) -> None:
        self.options = options

    async def __call__(self, problem: Problem, responses: Sequence[Response]) -> list[Verdict]:
        return []


def make(**options: str) -> NeedsAnOption:
    return NeedsAnOption(**options)


an_instance = NeedsAnOption("x")
a_value = SimpleNamespace()


def test_a_class_is_built_with_its_options() -> None:
    assert build("exact_match", {"ignore_case": True}) == ExactMatch(ignore_case=True)


def test_functions_instances_and_factories_are_accepted() -> None:
    assert build(f"{__name__}:a_function", {}) is a_function
    assert build(f"{__name__}:an_instance", {}) is an_instance
    assert build(f"{__name__}:make", {"path": "y"}) == NeedsAnOption("y")
    assert build(f"{__name__}:TakesAnything", {"a": 1}).options == {"a": 1}


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        (
            "exact_match",
            {"ignore_cases": True},
            "no option 'ignore_cases', did you mean 'ignore_case'.*takes: extraction, ignore_case, strip",
        ),
        ("exact_match", {"ignore_case": "yes"}, "refuses ignore_case='yes': .*neither true nor false"),
        ("exact_match", {"extraction": "strickt"}, "'strickt' is none of strict, lenient, tag, boxed, hash, whole"),
        ("numeric", {"tolerance": -1}, "tolerance=-1 is not a number of at least 0"),
        ("numeric", {"tolerance": float("nan")}, "tolerance=nan"),
        ("format", {"pattern": "("}, "not a regular expression"),
        ("format", {"tags": "think"}, "not a list of tag names"),
        (f"{__name__}:NeedsAnOption", {}, "needs the option 'path'"),
        (f"{__name__}:a_function", {"a": 1}, "plain function and takes no options, got a"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(name: str, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(BadOption, match=complaint):
        build(name, options)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("FailsToBuild", "OSError: no such model file"),
        ("NotAVerifier", "builds a NotAVerifier without `async def __call__"),
        ("Synchronous", "builds a Synchronous without `async def __call__"),
        ("a_value", "is a SimpleNamespace, not a class"),
    ],
)
def test_what_cannot_become_a_verifier_is_a_broken_plugin(name: str, complaint: str) -> None:
    with pytest.raises(BrokenPlugin, match=complaint):
        build(f"{__name__}:{name}", {})
