"""Runs untrusted programs. Knows nothing of models, rewards or verifiers."""

from sandbox.docker_pool import DockerSandbox
from sandbox.errors import ImageMissing, SandboxError, SandboxUnavailable
from sandbox.local import LocalSandbox
from sandbox.protocol import Sandbox
from sandbox.types import Answers, Entry, Examination, Execution, Limits, Program

__all__ = [
    "Answers",
    "DockerSandbox",
    "Entry",
    "Examination",
    "Execution",
    "ImageMissing",
    "Limits",
    "LocalSandbox",
    "Program",
    "Sandbox",
    "SandboxError",
    "SandboxUnavailable",
]
