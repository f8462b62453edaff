"""Runs untrusted programs. Knows nothing of models, rewards or verifiers."""

from sandbox.errors import SandboxError, SandboxUnavailable
from sandbox.protocol import Sandbox
from sandbox.types import Execution, Limits, Program

__all__ = ["Execution", "Limits", "Program", "Sandbox", "SandboxError", "SandboxUnavailable"]
