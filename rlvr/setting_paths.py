"""The tree of settings as dotted paths: what exists, which class a path leads to, and which name was probably meant.

Knows pydantic models only; reads no files.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its dotted path, what it may be, its default as text and its description."""

    path: str
    allowed: str
    default: str
    description: str


def describe_settings(model: type[BaseModel], prefix: str = "", given: BaseModel | None = None) -> Iterator[Setting]:
    """Yield every setting below a class; where `name` selects among classes, those of the field's default.

    `given` holds the defaults where they are not the class's own.
    """
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        inner = settings_class(field, {})
        required = field.is_required() and given is None
        default = None if required else getattr(given, name) if given is not None else field.get_default(call_default_factory=True)
        if inner is None or default is None and not required:
            text = "required" if required else _as_text(default)
            description = field.description or (inner.__doc__ if inner else "") or ""
            yield Setting(path, _annotation_text(field.annotation), text, " ".join(description.split()))
        if inner is not None:
            below = describe_settings(inner, path + ".", default if isinstance(default, BaseModel) else None)
            tags = " | ".join(discriminated_classes(field))
            yield from (
                replace(setting, allowed=tags) if tags and setting.path == f"{path}.{field.discriminator}" else setting for setting in below
            )


def setting_names(model: type[BaseModel]) -> list[str]:
    """Return the dotted path of every setting below a class, groups included."""
    paths: list[str] = []
    for name, field in model.model_fields.items():
        paths.append(name)
        inner = settings_class(field, {})
        if inner is not None:
            paths.extend(f"{name}.{path}" for path in setting_names(inner))
    return paths


def discriminated_classes(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """Return tag -> class for a field where `name` selects the class, and nothing for any other field."""
    if field.discriminator is None:
        return {}
    key = str(field.discriminator)
    return {tag: cls for cls in _models(field.annotation) for tag in get_args(cls.model_fields[key].annotation)}


def settings_class(field: FieldInfo, data: Mapping[str, Any]) -> type[BaseModel] | None:
    """Return the class a field's mapping is read as, None for a field that holds a plain value."""
    tagged = discriminated_classes(field)
    if tagged:
        tag = data.get(str(field.discriminator))
        return tagged.get(tag) or (type(field.default) if isinstance(field.default, BaseModel) else next(iter(tagged.values())))
    models = list(_models(field.annotation))
    return models[0] if models else None


def class_at(model: type[BaseModel], data: Any, path: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the class at a path below `model`, following `data` where a name selects the class."""
    current: type[BaseModel] | None = model
    for key in path:
        data = data[key] if isinstance(data, Mapping) and key in data else {}
        field = current.model_fields.get(str(key)) if current is not None else None
        current = settings_class(field, data if isinstance(data, Mapping) else {}) if field is not None else None
    return current


def suggest(wrong: str, known: Sequence[str], *, otherwise: str | None = None) -> str:
    """Return `; did you mean 'x'?`, or when none is near `otherwise`, which is by default the known names."""
    near = difflib.get_close_matches(wrong, known, n=2, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(f"'{name}'" for name in near) + "?"
    if otherwise is not None:
        return otherwise
    return f"; known are: {', '.join(known)}" if known else ""


def _members(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    for member in _members(annotation):
        if get_origin(member) is Annotated:
            yield from _models(member)
        elif isinstance(member, type) and issubclass(member, BaseModel):
            yield member


def _annotation_text(annotation: Any) -> str:
    words = []
    for member in _members(annotation):
        if member is type(None):
            words.append("null")
        elif str(get_origin(member)) == "typing.Literal":
            words.extend(str(value) for value in get_args(member))
        elif isinstance(member, type) and get_origin(member) is None:
            words.append("settings" if issubclass(member, BaseModel) else {"str": "text"}.get(member.__name__, member.__name__))
        else:
            words.append(str(member).replace("typing.", ""))
    return " | ".join(words)


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value!r}" if isinstance(value, str) else str(list(value) if isinstance(value, tuple) else value)
