"""Docker for the tests: an engine that answers, the sandbox image (built where it is missing), and one warm pool for all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from sandbox import DockerSandbox
from sandbox.docker_engine import connect
from sandbox.errors import SandboxUnavailable
from sandbox.image.build import ensure_image
from verifiers.code_tests import harness_modules, shared_sandbox
from verifiers.registry import build
from verifiers.testing import FixedResponse
from verifiers.types import Problem, Verdict

POOL = {"num_workers": 2}


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """A client of the engine's API."""
    try:
        client = connect(timeout_seconds=1800.0)
    except SandboxUnavailable as error:
        pytest.skip(f"docker: {error}")
    ensure_image(client)
    yield client
    client.close()


@pytest.fixture(scope="session")
def pool(engine: Any) -> DockerSandbox:
    """The pool that the verifier `code` of these tests runs on, too."""
    return shared_sandbox("docker", POOL)


@pytest.fixture(scope="session")
def judge(pool: DockerSandbox) -> Callable[..., Verdict]:
    """Judge one response by tests: `judge(tests, text, **options)`."""

    def judge_one(tests: Any, text: str, **options: Any) -> Verdict:
        verifier = build("code", {"test_seconds": 2.0, "total_seconds": 8.0, "sandbox_options": POOL, **options})
        problem = Problem("p", ({"role": "user", "content": "…"},), {"tests": tests})
        return asyncio.run(verifier(problem, [FixedResponse(text)]))[0]

    return judge_one


@pytest.fixture
def own_pool(engine: Any) -> Iterator[Callable[..., DockerSandbox]]:
    """Make pools for one test alone; closed behind it."""
    made: list[DockerSandbox] = []

    def make(kind: type[DockerSandbox] = DockerSandbox, **options: Any) -> DockerSandbox:
        made.append(kind(**{"num_workers": 1, "modules": harness_modules(), **options}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def calls(entry_point: str, *cases: tuple[list[Any], Any]) -> Mapping[str, Any]:
    return {"type": "calls", "entry_point": entry_point, "cases": [{"args": args, "expected": expected} for args, expected in cases]}
