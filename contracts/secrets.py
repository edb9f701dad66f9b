"""Secrets stand in environment variables or in the company folder's `.env`, never in YAML."""

import hashlib
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, model_validator

from contracts.errors import SourceRefused


class FromEnvironment(BaseModel):
    """A value that stands in an environment variable, because it may hold a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")

    @model_validator(mode="before")
    @classmethod
    def _never_in_clear(cls, given: Any) -> Any:
        if isinstance(given, str | int | float):
            raise ValueError("a secret stands in no file; write {env: NAME} with a variable's name")
        return given


class Secrets:
    """Looks secrets up: in the environment first, then in the `.env` of a company folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._file = home / ".env"
        self._given: set[str] = set()

    @cached_property
    def _in_file(self) -> dict[str, str | None]:
        return dotenv_values(self._file) if self._file.is_file() else {}

    def of(self, given: FromEnvironment) -> str:
        """The value in clear; it must never be shown.

        Raises:
            SourceRefused: the variable is neither set nor in the file.
        """
        value = os.environ.get(given.env) or self._in_file.get(given.env)
        if not value:
            raise SourceRefused(
                f"the environment variable {given.env} is not set",
                "set it, or write it into the .env file of the company folder",
            )
        self._given.add(value)
        return value

    def fingerprint(self) -> str:
        """Changes when one of the secrets given out so far does; none can be told from it."""
        return hashlib.sha256("\n".join(sorted(self._given)).encode()).hexdigest()[:12]
