"""Turns a name into a plug-in: one small class over the entry points of one group, and `build` for verifiers.

Built-ins come in through the same door as everybody's plug-ins. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from verifiers.errors import BadOption, BrokenPlugin, DuplicateName, RegistryError, UnknownName
from verifiers.types import Verifier


class Registry:
    """The plug-ins of one entry-point group, by name; a dotted path `package.module:name` works wherever a name does.

    `noun` is what error messages call one of them.
    """

    def __init__(self, group: str, noun: str | None = None) -> None:
        self.group = group
        self.noun = noun or f"{group} plug-in"

    def names(self) -> list[str]:
        """Return every registered name, sorted; imports nothing."""
        return sorted({entry.name for entry in entry_points(group=self.group)})

    def get(self, name: str) -> Any:
        """Import and return what is registered under `name`, or what the dotted path points at.

        Raises: UnknownName: there is no such name, module or attribute. DuplicateName: two distributions claim the name.
        BrokenPlugin: importing it failed; the plug-in's own error is the cause.
        """
        if ":" in name:
            return self._import_path(name)
        # One distribution may be listed twice, by its checkout and by its installation; that is no rivalry.
        found = list({(entry.value, _distribution(entry)): entry for entry in entry_points(group=self.group, name=name)}.values())
        if not found:
            raise UnknownName(self._unknown(name))
        if len(found) > 1:
            claims = " and ".join(sorted(f"{entry.value} from {_distribution(entry)}" for entry in found))
            raise DuplicateName(
                f"{self.noun} {name!r} is claimed by {claims}: "
                f"uninstall one of them, or name the one you mean by its path, {found[0].value!r}"
            )
        try:
            return found[0].load()
        except Exception as error:  # Boundary: a plug-in may fail in any way, and must not look like ours failing.
            raise BrokenPlugin(
                f"{self.noun} {name!r} ({found[0].value} from {_distribution(found[0])}) cannot be imported: {_describe(error)}"
            ) from error

    def _unknown(self, name: str) -> str:
        names = self.names()
        if not names:
            return f"no {self.noun} {name!r}: nothing is registered in {self.group!r}; is rlvr installed (pip install -e .)?"
        hint = near(name, names)
        if "." in name:
            hint += "; a dotted path is written package.module:name"
        return f"no {self.noun} {name!r}{hint}; there are: {', '.join(names)}"

    def _import_path(self, path: str) -> Any:
        module_name, _, attribute = path.partition(":")
        if not module_name or not attribute:
            raise UnknownName(f"{self.noun} path {path!r} is not of the form package.module:name")
        try:
            target = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise BrokenPlugin(f"{self.noun} {path!r} cannot be imported: {_describe(error)}") from error
            raise UnknownName(
                f"{self.noun} {path!r}: there is no module {error.name!r}; is its package installed, or its folder on PYTHONPATH?"
            ) from error
        except Exception as error:  # Boundary: see `get`.
            raise BrokenPlugin(f"{self.noun} {path!r} cannot be imported: {_describe(error)}") from error
        for part in attribute.split("."):
            if not hasattr(target, part):
                raise UnknownName(f"{self.noun} {path!r}: {module_name!r} has no {attribute!r}{near(part, dir(target))}")
            target = getattr(target, part)
        return target


VERIFIERS = Registry("rlvr.verifiers", "verifier")
SANDBOXES = Registry("rlvr.sandboxes", "sandbox")


def build(name: str, options: Mapping[str, Any]) -> Verifier:
    """Construct the verifier of that name with its options.

    A class (or an ordinary function) is called with the options as keywords; an async function is a verifier already and takes none.

    Raises: RegistryError: see `Registry.get`. BadOption: an option is misspelt, missing or has a value the verifier refuses.
    BrokenPlugin: construction failed, or what came of it is no verifier.
    """
    target = VERIFIERS.get(name)
    if _judges(target):
        if options:
            raise BadOption(f"verifier {name!r} is a plain function and takes no options, got {', '.join(sorted(options))}")
        return target
    if not callable(target):
        raise BrokenPlugin(f"verifier {name!r} is a {type(target).__name__}, not a class or an async function")
    _check_options(name, target, options)
    try:
        verifier = target(**options)
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "no options"
        raise BadOption(f"verifier {name!r} refuses {given}: {error}") from error
    except RegistryError:  # Of a part inside a composite; it says which.
        raise
    except Exception as error:  # Boundary: a plug-in's constructor.
        raise BrokenPlugin(f"verifier {name!r} cannot be built: {_describe(error)}") from error
    if not _judges(verifier):
        raise BrokenPlugin(f"verifier {name!r} builds a {type(verifier).__name__} without `async def __call__(self, problem, responses)`")
    return verifier


def near(name: str, names: Iterable[str]) -> str:
    """Return `, did you mean 'x' or 'y'?`, or nothing where no name is near."""
    matches = difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)
    return f", did you mean {' or '.join(map(repr, matches))}?" if matches else ""


def _check_options(name: str, target: Any, options: Mapping[str, Any]) -> None:
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # Written in C: it checks its arguments itself.
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    allowed = [key for key, parameter in parameters.items() if parameter.kind is not parameter.VAR_POSITIONAL]
    for option in options:
        if option not in allowed:
            raise BadOption(f"verifier {name!r} has no option {option!r}{near(option, allowed)}; it takes: {', '.join(allowed) or 'none'}")
    for key in allowed:
        if key not in options and parameters[key].default is inspect.Parameter.empty:
            raise BadOption(f"verifier {name!r} needs the option {key!r}; it takes: {', '.join(allowed)}")


def _judges(target: Any) -> bool:
    if inspect.isclass(target):
        return False
    return callable(target) and (inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(target.__call__))


def _distribution(entry: EntryPoint) -> str:
    return "an unnamed distribution" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
