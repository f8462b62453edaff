"""`rlvr sandbox`, `rlvr doctor` and `rlvr verify --verifier code` as a person calls them, on a real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.docker_engine import connect
from sandbox.errors import SandboxUnavailable
from sandbox.image.build import build_image, default_tag, ensure_image

pytestmark = pytest.mark.docker

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def engine():
    try:
        client = connect(timeout_seconds=1800.0)
    except SandboxUnavailable as error:
        pytest.skip(f"docker: {error}")
    ensure_image(client)
    return client


def rlvr(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlvr", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_status_names_the_engine_the_image_and_every_limit_that_holds(engine) -> None:
    done = rlvr("sandbox", "status")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split("  ")[0].strip(): line for line in done.stdout.splitlines()}
    for limit in ("engine", "image", "memory", "processes", "network", "read-only root", "work folder", "seccomp", "no new privileges"):
        assert " yes " in rows[limit], done.stdout
    assert default_tag() in rows["image"]


def test_the_doctor_knows_the_sandbox(engine) -> None:
    done = rlvr("doctor")
    assert "limits that hold: memory, processes, network" in " ".join(done.stdout.split()), done.stdout


def test_without_an_engine_status_and_doctor_say_what_to_do(tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/docker.sock"
    done = rlvr("sandbox", "status", DOCKER_HOST=nowhere)
    assert done.returncode == 1 and "install and start Docker" in " ".join(done.stdout.split())
    built = rlvr("sandbox", "build", DOCKER_HOST=nowhere)
    assert built.returncode == 1 and "no Docker engine answers" in built.stderr
    assert "no Docker engine answers" in " ".join(rlvr("doctor", DOCKER_HOST=nowhere).stdout.split())


def test_an_image_that_is_there_is_kept_and_a_wrong_method_is_named(engine) -> None:
    assert "is there already" in rlvr("sandbox", "build").stdout
    wrong = rlvr("sandbox", "build", "--method", "magic")
    assert wrong.returncode == 2 and "there are auto, dockerfile and debootstrap" in wrong.stderr


def test_the_dockerfile_builds_on_a_base_image(engine) -> None:
    """On a base that is there already: a registry may be out of reach. The result is an image that programs run in, numpy inside."""
    base = "rlvr-test-base:latest"
    repository, _, tag = base.partition(":")
    engine.tag(default_tag(), repository, tag)
    lines: list[str] = []
    assert build_image(engine, method="dockerfile", base=base, report=lines.append) == default_tag()
    assert any("FROM" in line for line in lines)
    engine.remove_image(base, force=True)
    done = rlvr("sandbox", "status")
    assert done.returncode == 0, done.stdout


def test_debootstrap_makes_the_image_where_no_registry_can_be_reached(engine) -> None:
    if os.geteuid() != 0:
        pytest.skip("debootstrap needs root")
    done = rlvr("sandbox", "build", "--method", "debootstrap", "--force")
    assert done.returncode == 0, done.stderr
    assert f"built {default_tag()}" in done.stdout
    assert rlvr("sandbox", "status").returncode == 0


def test_clean_leaves_the_containers_of_others_who_live(engine) -> None:
    assert rlvr("sandbox", "clean").returncode == 0


def test_verify_judges_programs_from_a_file(engine, tmp_path: Path) -> None:
    tests = {"type": "calls", "entry_point": "f", "cases": [{"args": [1], "expected": 2}, {"args": [5], "expected": 6}]}
    responses = {"right": "```python\ndef f(x):\n    return x + 1\n```", "wrong": "def f(x):\n    return 2", "loop": "while True: pass"}
    source = tmp_path / "in.jsonl"
    source.write_text(
        "".join(json.dumps({"id": key, "response": text, "reference": {"tests": tests}}) + "\n" for key, text in responses.items())
    )
    done = rlvr("verify", str(source), "--verifier", "code", "--output", str(tmp_path / "out.jsonl"), "test_seconds=1", "reward=share")
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line)["verdict"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(each["score"], each["outcome"]) for each in verdicts] == [(1.0, "correct"), (0.5, "partial"), (0.0, "timeout")]
    # A gold that cannot be read is an error of its line, and so is an engine that is not there.
    source.write_text(json.dumps({"id": "x", "response": "pass", "reference": {"answer": "4"}}) + "\n")
    done = rlvr("verify", str(source), "--verifier", "code", "--output", str(tmp_path / "out.jsonl"))
    assert done.returncode == 3 and "has no 'tests'" in (tmp_path / "out.jsonl").read_text()


def test_validate_finds_right_programs_that_fail_their_own_tests(engine, tmp_path: Path) -> None:
    rows = [
        {"prompt": "Add one.", "code": "def f(x):\n    return x + 1", "test_list": ["assert f(1) == 2"]},
        {"prompt": "Add two.", "code": "def f(x):\n    return x + 1", "test_list": ["assert f(1) == 3"]},
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = rlvr("verify", "--validate", str(source), "--verifier", "code")
    assert done.returncode == 3, done.stderr
    assert "1 of 2 gold answers earn the reward of 'code'" in done.stderr and "data.fields.tests=test_list" in done.stderr
