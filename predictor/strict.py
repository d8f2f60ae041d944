"""Reading JSON that a stranger may have sent: small, shallow, and of known keys alone."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    model_validator,
)

__all__ = [
    "MOST_NAMES",
    "Few",
    "Names",
    "Numbers",
    "Shallow",
    "Strict",
    "Wholes",
    "first_problem",
    "parsed",
    "version_problem",
]

MOST_NAMES = 1000
"""Keys of a mapping, or names in a list, that are read."""

_MOST_NESTED = 50


def _few(content: Any) -> Any:
    if isinstance(content, dict) and len(content) > MOST_NAMES:
        raise ValueError(f"must have at most {MOST_NAMES} keys, got {len(content)}")
    return content


def _shallow(content: Any) -> Any:
    level = [content]
    for _ in range(_MOST_NESTED):
        level = [
            inner for each in level if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]  # fmt: skip
    if level:
        raise ValueError(f"must be nested at most {_MOST_NESTED} deep")
    return content


class Strict(BaseModel):
    """Known keys with finite numbers, and not too many of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _few_keys(cls, content: Any) -> Any:
        return _few(content)


# Where a stranger may send a million of something, the first that is wrong is enough to say.
Few = BeforeValidator(_few)
Shallow = BeforeValidator(_shallow)
Names = Annotated[tuple[str, ...], FailFast(), Field(max_length=MOST_NAMES)]
Numbers = Annotated[list[float], FailFast()]
Wholes = Annotated[list[int], FailFast()]


def parsed(content: bytes, name: str) -> Any:
    """Read a file as JSON in UTF-8; `ValueError` with its name if it is none."""
    try:
        return json.loads(content.decode())  # and not in any other encoding
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not valid JSON") from error


def version_problem(found: Any, wanted: int) -> str | None:
    """Say that a folder was written for another version of its files, if it was."""
    if type(found) is int and found == wanted:
        return None
    given = found if isinstance(found, int | str | None) else f"a {type(found).__name__}"
    return f"its schema version must be {wanted}, got {given!s:.40}; fit it again"


def first_problem(name: str, error: ValidationError) -> str:
    """Say what is wrong first in a file."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{name}: {where}: {first['msg']}"
