"""The sandbox's errors.

SandboxError
└── SandboxUnavailable    the infrastructure failed, not the program; says what to do
    └── ImageMissing      there is no image, and it cannot be built here
"""


class SandboxError(Exception):
    """Anything that goes wrong in the sandbox itself; a failing program is an `Execution`, never an error."""


class SandboxUnavailable(SandboxError):
    """The engine that runs programs cannot be reached or has failed for good."""


class ImageMissing(SandboxUnavailable):
    """The image that containers are made of is not there and could not be built."""
