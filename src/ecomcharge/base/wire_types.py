"""Types of values in answers. Their limits go into the schemas of the API description."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Moment = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$")]  # UTC
NaturalNumber = Annotated[int, Meta(ge=0)]
PositiveNumber = Annotated[int, Meta(ge=1)]
WebAddress = Annotated[str, Meta(pattern="^https?://")]
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
