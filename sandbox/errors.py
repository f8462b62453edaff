"""The sandbox's errors.

SandboxError
└── SandboxUnavailable    the infrastructure failed, not the program
"""


class SandboxError(Exception):
    """Anything that goes wrong in the sandbox itself; a failing program is an `Execution`, never an error."""


class SandboxUnavailable(SandboxError):
    """The engine that runs programs cannot be reached or has failed for good."""
