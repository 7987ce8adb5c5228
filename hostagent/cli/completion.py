"""`hostagent completion`: the script that lets a shell complete commands and options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostagent.cli.parser import command

if TYPE_CHECKING:
    import argparse

    from hostagent.cli.parser import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "completion",
        print_script,
        summary="print the completion script of a shell",
        examples="""
            hostagent completion bash > /usr/share/bash-completion/completions/hostagent
            hostagent completion zsh > /usr/share/zsh/vendor-completions/_hostagent
        """,
    )
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell to complete in")


def print_script(args: argparse.Namespace) -> int:
    import shtab

    from hostagent.cli import build_parser, output

    script = shtab.complete(build_parser(), shell=args.shell)
    if args.json:
        output.emit(args, {"shell": args.shell, "script": script})
    else:
        print(script)
    return 0
