"""A value that is JSON text already."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rendered:
    """JSON text that goes into a reply as it is."""

    text: str
