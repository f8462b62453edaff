"""Settings from files and the command line: YAML or a recipe's defaults, then `a.b=c` overrides, then one validated object.

Everything a person can get wrong here becomes a `ConfigError` with one line per wrong setting, never a traceback.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from rlvr.errors import ConfigError
from rlvr.setting_paths import class_at, setting_names, settings_class, suggest
from rlvr.settings import Settings

Config = TypeVar("Config", bound=Settings)


@dataclass(frozen=True, slots=True)
class Resolved(Generic[Config]):
    """A validated configuration and what a person should know about how it came to be."""

    config: Config
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Override:
    """One `a.b=c` of the command line, its value read as YAML."""

    text: str
    keys: tuple[str, ...]
    value: Any = field(compare=False)


def resolve(model: type[Config], base: Settings | Mapping[str, Any], overrides: Sequence[str] = ()) -> Resolved[Config]:
    """Lay overrides over a base and validate the result.

    Where `name` selects a class of settings (`algorithm.name=dapo`) and the override changes it, the base's other settings of that group
    are dropped and the new class's defaults take their place; a note names those that had been set.

    Raises: ConfigError: an override is malformed, or a setting is unknown, missing or wrong.
    """
    parsed = [parse_override(text) for text in overrides]
    data = plain_settings(base) if isinstance(base, BaseModel) else copy.deepcopy(dict(base))
    _complete_groups(model, data)
    notes = _drop_replaced_groups(model, data, parsed)
    for override in parsed:
        _set(data, override)
    _complete_groups(model, data)
    return Resolved(validate(model, data), tuple(notes))


def validate(model: type[Config], data: Mapping[str, Any]) -> Config:
    """Return the validated settings.

    Raises: ConfigError: one line for each wrong setting.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(model, data, error))) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the settings in a YAML file, `${…}` interpolations resolved.

    Raises: ConfigError: there is no such file, or it is not YAML with settings in it.
    """
    try:
        data = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file '{path}'") from error
    except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"'{path}' holds a list, not settings such as `model: {{path: …}}`")
    return {str(key): value for key, value in data.items()}


def write_yaml(config: Settings, path: Path) -> None:
    """Write every setting, defaults included, so that reading the file gives an equal configuration."""
    data = _escape(config.model_dump(mode="python"))
    aside = path.with_name(path.name + ".new")
    aside.write_text(OmegaConf.to_yaml(OmegaConf.create(data)), encoding="utf-8")
    aside.replace(path)


def parse_override(text: str) -> Override:
    """Read one `a.b=c`; the value is YAML: `1e-6`, `true`, `null`, `[1, 2]`, `{a: 1}` or text.

    Raises: ConfigError: there is no `=`, no name, or the value is not YAML.
    """
    name, separator, value = text.partition("=")
    keys = tuple(name.strip().split("."))
    if not separator or not all(keys):
        raise ConfigError(f"'{text}' is not a setting: write name=value, for example optimizer.learning_rate=1e-6")
    if not value or value.startswith("#"):  # YAML would read nothing, or a comment, as null.
        return Override(text, keys, value)
    try:
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]), resolve=True)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"'{text}': the value cannot be read as YAML ({reason}); put text with special signs in quotes") from error
    return Override(text, keys, parsed["value"] if isinstance(parsed, dict) else None)


def read_options(overrides: Sequence[str]) -> dict[str, Any]:
    """Return `a.b=c` arguments as nested mappings, for options that their receiver checks.

    Raises: ConfigError: an argument is malformed.
    """
    data: dict[str, Any] = {}
    for text in overrides:
        _set(data, parse_override(text))
    return data


def plain_settings(config: BaseModel, unless: BaseModel | None = None) -> dict[str, Any]:
    """Return what was set explicitly as nested mappings, with the names that select classes always among it.

    `unless` holds the values that would stand here anyway, where they are not the class's own defaults.
    """
    data: dict[str, Any] = {}
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        given = getattr(unless, name, None) if unless is not None else info.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            comparable = isinstance(given, BaseModel) and (info.discriminator is None or type(given) is type(value))
            inner = plain_settings(value, given if comparable else None)
            if info.discriminator is not None:
                inner = {str(info.discriminator): getattr(value, str(info.discriminator)), **inner}
            if inner or given is None or (unless is None and name in config.model_fields_set):
                data[name] = inner
        elif value != given or (unless is None and name in config.model_fields_set):
            data[name] = copy.deepcopy(value)
    return data


def explain(model: type[BaseModel], data: Mapping[str, Any], error: ValidationError) -> list[str]:
    """Return one line per wrong setting: its path, its value, what is wrong and what is allowed."""
    problems: dict[str, list[str]] = {}
    for fault in error.errors(include_url=False):
        path = _data_path(data, fault["loc"], missing=fault["type"] == "missing")
        if fault["type"] == "union_tag_invalid":
            path = (*path, fault["ctx"]["discriminator"].strip("'"))
        problems.setdefault(".".join(map(str, path)), []).append(_fault_text(model, data, path, fault))
    lines = []
    for name, texts in problems.items():
        first, *others = dict.fromkeys(texts)  # The members of a union each complain about the one value.
        complaint = first + "".join(" or " + text.partition(": ")[2] for text in others)
        lines.append(f"setting '{name}'{complaint}" if name else complaint.lstrip(": "))
    return lines


def _fault_text(model: type[BaseModel], data: Mapping[str, Any], path: tuple[str | int, ...], fault: Any) -> str:
    value, context, name = fault["input"], fault.get("ctx", {}), ".".join(map(str, path))
    shown = f" = {_shown(value)}"
    match fault["type"]:
        case "extra_forbidden":
            return f"{shown}: there is no such setting{_suggest_setting(model, data, path)}"
        case "missing":
            return f" is required and missing: give {name}=…"
        case "literal_error":
            known = [word.strip(" '") for word in context["expected"].replace(" or ", ",").split(",")]
            return f"{shown}: allowed are {', '.join(known)}{suggest(str(value), known, otherwise='')}"
        case "union_tag_invalid":
            known = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
            return f" = {_shown(context['tag'])}: there is no such name{suggest(context['tag'], known)}"
        case "value_error":
            return f": {context['error']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{shown}: this is a group of settings: set one of them, for example {name}.{_first_name(model, data, path)}={value}"
        case _:
            return f"{shown}: {fault['msg'].replace('Input should', 'must').replace('Value error, ', '')}"


def _first_name(model: type[BaseModel], data: Mapping[str, Any], path: tuple[str | int, ...]) -> str:
    group = class_at(model, data, path)
    names = list(group.model_fields) if group is not None else []
    return "name" if "name" in names or not names else names[0]


def _suggest_setting(model: type[BaseModel], data: Mapping[str, Any], path: tuple[str | int, ...]) -> str:
    """Look for the misspelt name among its siblings first, then for the right name in the wrong place."""
    parent = class_at(model, data, path[:-1])
    siblings = list(parent.model_fields) if parent is not None else []
    wrong = str(path[-1])
    if near := suggest(wrong, siblings, otherwise=""):
        return near
    elsewhere = sorted((known for known in setting_names(model) if known.rpartition(".")[2] == wrong), key=lambda known: known.count("."))
    if elsewhere:
        return "; did you mean " + " or ".join(f"'{known}'" for known in elsewhere[:3]) + "?"
    return suggest(wrong, siblings)


def _data_path(data: Any, location: Sequence[str | int], *, missing: bool) -> tuple[str | int, ...]:
    """Keep of pydantic's location what is a key in the data; the rest are names of classes and types."""
    path: list[str | int] = []
    for number, key in enumerate(location):
        if isinstance(data, Mapping) and key in data:
            data = data[key]
        elif isinstance(data, list | tuple) and isinstance(key, int) and key < len(data):
            data = data[key]
        elif not (missing and number == len(location) - 1):
            continue
        path.append(key)
    return tuple(path)


def _shown(value: Any) -> str:
    text = {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else f"{value!r}"
    return text if len(text) <= 80 else text[:77] + "…"


def _set(data: dict[str, Any], override: Override) -> None:
    place: Any = data
    for depth, key in enumerate(override.keys):
        last = depth == len(override.keys) - 1
        where = ".".join(override.keys[:depth])
        if isinstance(place, list | tuple):
            index = _list_index(place, key, where, override)
            if last:
                place[index] = override.value
            elif not isinstance(place[index], dict | list):
                raise ConfigError(f"'{override.text}': '{where}.{key}' is {_shown(place[index])} and has no settings of its own")
            place = place[index]
        elif last:
            place[key] = override.value
        else:
            inner = place.get(key)
            if inner is None:
                inner = place[key] = {}
            elif isinstance(inner, BaseModel):
                inner = place[key] = plain_settings(inner)
            elif isinstance(inner, tuple):
                inner = place[key] = list(inner)
            elif not isinstance(inner, dict | list):
                name = ".".join(override.keys[: depth + 1])
                raise ConfigError(f"'{override.text}': '{name}' is {_shown(inner)} and has no settings of its own")
            place = inner


def _list_index(place: Sequence[Any], key: str, where: str, override: Override) -> int:
    if not key.isdigit() or int(key) >= len(place):
        raise ConfigError(f"'{override.text}': '{where}' is a list of {len(place)} items, numbered from 0; '{key}' is none of them")
    return int(key)


def _drop_replaced_groups(model: type[BaseModel], data: dict[str, Any], overrides: Sequence[Override]) -> list[str]:
    notes = []
    for override in overrides:
        *group, key = override.keys
        parent = class_at(model, data, group[:-1]) if group else None
        info = parent.model_fields.get(group[-1]) if parent is not None else None
        if info is None or str(info.discriminator) != key:
            continue
        place: Any = data
        for part in group[:-1]:
            place = place.get(part, {}) if isinstance(place, dict) else {}
        old = place.get(group[-1]) if isinstance(place, dict) else None
        if not isinstance(old, dict) or old.get(key) == override.value:
            continue
        dropped = [name for name in old if name != key]
        if dropped:
            name = ".".join(group)
            notes.append(f"{override.text} replaces {name}.{key}={old.get(key)}: its settings {', '.join(dropped)} are dropped")
        place[group[-1]] = {key: override.value}
    return notes


def _complete_groups(model: type[BaseModel], data: dict[str, Any]) -> None:
    """Give partly set groups the rest of their field's default where that is not what the group's class would default to.

    `algorithm.clip_high=0.3` keeps the default algorithm's name, and `algorithm.kl.estimator=k1` keeps GRPO's coefficient.
    """
    for name, info in model.model_fields.items():
        inner = data.get(name)
        if not isinstance(inner, dict):
            continue
        if isinstance(info.default, BaseModel):
            if info.discriminator is not None:
                inner.setdefault(str(info.discriminator), getattr(info.default, str(info.discriminator)))
            elif (group := settings_class(info, inner)) is not None:
                for key, value in info.default.model_dump().items():
                    if key in group.model_fields and getattr(info.default, key) != group.model_fields[key].get_default(
                        call_default_factory=True
                    ):
                        inner.setdefault(key, value)
        cls = settings_class(info, inner)
        if cls is not None:
            _complete_groups(cls, inner)


def _escape(value: Any) -> Any:
    """Keep literal `${` in text from being read as an interpolation."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    if isinstance(value, Mapping):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escape(item) for item in value]
    return value
