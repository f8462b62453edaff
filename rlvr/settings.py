"""The common behaviour of all settings: frozen, and a misspelt name is an error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A group of settings; attribute docstrings become the field descriptions that `--help` and error messages show."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)
