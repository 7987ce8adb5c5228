"""A result that is JSON text already: the database keeps records so, and a JSON reply takes them unparsed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rendered:
    """JSON text (RFC 8259: no NaN, no infinities) that stands for a call's whole result."""

    text: str
