"""Progress of long work on standard error: a spinner with the seconds on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Show that `title` is under way, and how long it took when it is over."""
    started = time.monotonic()
    ended = "failed after"
    try:
        with _spinner(title):
            yield
        ended = "done in"
    finally:
        print(f"  {title}: {ended} {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


def note(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _spinner(title: str) -> Iterator[None]:
    if not sys.stderr.isatty():
        print(f"  {title} …", file=sys.stderr, flush=True)
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(title, total=None)
        yield
