"""The verifiers' errors.

VerifierError               a response could not be judged; never turned into a score
├── GoldError               the gold answer is missing or unreadable
└── VerifierTimeout         the verifier passed its own deadline
RegistryError
├── UnknownName             nothing registered under that name; lists the near ones
├── DuplicateName           two plug-ins claim one name
├── BadOption               the plug-in has no such option, or refuses its value
└── BrokenPlugin            the plug-in exists but its import or construction failed
"""


class VerifierError(Exception):
    """A response could not be judged: a fault of the judge or of the gold answer, not of the response."""


class GoldError(VerifierError):
    """The problem's reference is missing what this verifier needs, or cannot be read."""


class VerifierTimeout(VerifierError):
    """The verifier passed its deadline."""


class RegistryError(Exception):
    """A name could not be turned into a plug-in."""


class UnknownName(RegistryError):
    """Nothing is registered under the name."""


class DuplicateName(RegistryError):
    """Two plug-ins claim the same name."""


class BadOption(RegistryError):
    """The plug-in has no such option, lacks a needed one, or refuses its value."""


class BrokenPlugin(RegistryError):
    """The plug-in is registered but could not be imported or built."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
