"""Plug-ins as users install them: distributions with entry points, laid out on the path without an installer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from verifiers.errors import BrokenPlugin, DuplicateName, UnknownName
from verifiers.registry import VERIFIERS, Registry, build
from verifiers.testing import check_verifier

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "examples" / "verifier_plugin"


def lay_out(folder: Path, *, distribution: str, group: str, entry_points: dict[str, str], modules: dict[str, str] | None = None) -> None:
    """Write what an installer would: the modules and a .dist-info folder beside them."""
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]) + "\n")
    for name, source in (modules or {}).items():
        (folder / f"{name}.py").write_text(source)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, like site-packages."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_example_plugin_is_found_by_its_name_and_keeps_the_contract(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    [(group, entry_points)] = project["entry-points"].items()
    lay_out(site, distribution=project["name"], group=group, entry_points=entry_points)
    monkeypatch.syspath_prepend(str(EXAMPLE))
    assert "palindrome" in VERIFIERS.names()
    verifier = build("palindrome", {"min_letters": 5})
    assert verifier.min_letters == 5
    check_verifier(verifier)


def test_the_tests_that_come_with_the_example_pass() -> None:
    path = os.pathsep.join([str(REPOSITORY), str(EXAMPLE)])
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={EXAMPLE}", "-c", os.devnull, str(EXAMPLE)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0 and "2 passed" in run.stdout, run.stdout + run.stderr


def test_two_distributions_with_one_name_are_named_when_it_is_asked_for(site: Path) -> None:
    lay_out(site, distribution="first-plugin", group="rlvr.test", entry_points={"same": "math:sqrt", "other": "math:floor"})
    lay_out(site, distribution="second-plugin", group="rlvr.test", entry_points={"same": "math:ceil"})
    registry = Registry("rlvr.test")
    assert registry.names() == ["other", "same"]
    with pytest.raises(DuplicateName, match="math:ceil from second-plugin 1.0 and math:sqrt from first-plugin 1.0"):
        registry.get("same")
    # The clash is nobody else's problem.
    assert registry.get("other")(1.5) == 1


def test_a_broken_plugin_raises_its_own_error_only_when_asked_for(site: Path) -> None:
    modules = {"broken_plugin_module": "raise RuntimeError('the licence has run out')"}
    entry_points = {"broken": "broken_plugin_module:Thing", "fine": "math:sqrt", "absent": "math:no_such_function", "gone": "no_such_mod:x"}
    lay_out(site, distribution="mixed-plugin", group="rlvr.test", entry_points=entry_points, modules=modules)
    registry = Registry("rlvr.test", "gadget")
    assert registry.names() == ["absent", "broken", "fine", "gone"]
    assert registry.get("fine")(4) == 2
    with pytest.raises(BrokenPlugin, match=r"gadget 'broken'.*mixed-plugin 1.0.*RuntimeError: the licence has run out") as caught:
        registry.get("broken")
    assert isinstance(caught.value.__cause__, RuntimeError)
    for name in ("absent", "gone"):
        with pytest.raises(BrokenPlugin, match="no_such"):
            registry.get(name)


def test_an_unknown_name_lists_the_near_ones_and_all(site: Path) -> None:
    lay_out(site, distribution="a-plugin", group="rlvr.test", entry_points={"exact_match": "math:sqrt", "numeric": "math:sqrt"})
    with pytest.raises(
        UnknownName, match=re.escape("no gadget 'exactmatch', did you mean 'exact_match'?; there are: exact_match, numeric")
    ):
        Registry("rlvr.test", "gadget").get("exactmatch")


def test_an_empty_group_says_how_to_install() -> None:
    with pytest.raises(UnknownName, match="nothing is registered in 'rlvr.no_such_group'.*pip install"):
        Registry("rlvr.no_such_group").get("x")
