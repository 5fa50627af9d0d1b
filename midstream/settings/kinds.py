"""Units and kinds of settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

KIB = 1024
MIB = 1024 * KIB

Port = Annotated[int, Field(ge=1, le=65535)]
