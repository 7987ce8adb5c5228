"""The records that a look at the network works from: the daemon's, and where none answers those of the cached copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.files import FileError
from hostagent.net import ask, cache
from hostagent.net.reconfigure import NOT_NOW

if TYPE_CHECKING:
    from pathlib import Path

METHOD = "hostagent.net_records"
ASK_S = 10.0


def read(socket: str, folder: Path, host_uuid: str = "") -> cache.Found:
    """What the daemon at this socket says, else as `cache.read`, also where the daemon hangs or is not ready: that is
    told. Raises CacheError, FileError, and what the daemon answers.
    """
    try:
        cached = cache.decode(str(ask.ask(socket, METHOD, timeout_s=ASK_S)).encode())
        return cache.Found(cached._replace(positions=()))  # the names are those that the daemon works with
    except ask.NotThereError:
        return cache.read(folder, host_uuid)
    except ask.NoAnswerError as error:
        why = f"{error.found}: this is the cached copy"
        try:
            found = cache.read(folder, host_uuid)
        except (cache.CacheError, FileError):
            raise error from None
    except ask.AnsweredError as error:
        if error.code not in NOT_NOW:
            raise
        why = f"the daemon is not ready ({error.code})"
        found = cache.read(folder, host_uuid)
    return found._replace(told=(why, *found.told))
