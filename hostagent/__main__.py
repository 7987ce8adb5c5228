"""`hostagent` and `python -m hostagent`: parse the command line, call one sub-command; no logic."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from hostagent.cli import output, parse
from hostagent.errors import HostagentError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

INTERRUPTED_EXIT = 130  # 128 + SIGINT, as a shell reports it
PIPE_EXIT = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    args: argparse.Namespace = parse(argv)
    try:
        code: int = args.handler(args)
        sys.stdout.flush()
    except HostagentError as failure:
        output.error(args, failure)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED_EXIT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_EXIT
    return code


if __name__ == "__main__":
    sys.exit(main())
