"""Tokens of event.from, and what a client subscribed to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostagent.api.fault import CallError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NUMBER = re.compile(r"(\d{1,20}),(\d{1,20})", re.ASCII)


def token(generation: int) -> str:
    """Two numbers of 20 digits, so that tokens compare as text: objects and messages share one generation."""
    return f"{generation:020d},{generation:020d}"


def generation_of(text: str) -> int:
    """The generation a token stands for; -1 for the empty one. Raises CallError EVENT_FROM_TOKEN_PARSE_FAILURE."""
    if text == "":
        return -1
    found = NUMBER.fullmatch(text)
    if found is None:
        raise CallError("EVENT_FROM_TOKEN_PARSE_FAILURE", text)
    return min(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which objects a client wants to hear of: whole classes (names of the data model), or single objects."""

    classes: frozenset[str]
    objects: frozenset[tuple[str, str]]

    def wants(self, cls: str, ref: str) -> bool:
        return cls in self.classes or (cls, ref) in self.objects

    @property
    def all_classes(self) -> frozenset[str]:
        """Every class of which some object is wanted."""
        return self.classes | {cls for cls, _ in self.objects}


def subscription(
    texts: Iterable[str], by_name: Mapping[str, str], everything: frozenset[str]
) -> Subscription:
    """From `*`, `class` and `class/ref`, the class in any case. Classes without events are heard of never.

    Raises CallError EVENT_SUBSCRIPTION_PARSE_FAILURE.
    """
    classes: set[str] = set()
    objects: set[tuple[str, str]] = set()
    for text in texts:
        name, slash, ref = text.partition("/")
        if text == "*":
            classes |= everything
        elif not name or (slash and not ref):
            raise CallError("EVENT_SUBSCRIPTION_PARSE_FAILURE", text)
        elif name.lower() in by_name and by_name[name.lower()] in everything:
            cls = by_name[name.lower()]
            if slash:
                objects.add((cls, ref))
            else:
                classes.add(cls)
    return Subscription(frozenset(classes), frozenset(objects))
