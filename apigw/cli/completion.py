"""``apigw completion``: a script for a shell, which then completes commands, options and files."""

from __future__ import annotations

import argparse

from argcomplete.shell_integration import shellcode

from apigw.cli.outcome import FOUND


def completion(options: argparse.Namespace) -> int:
    print(shellcode(["apigw"], shell=options.shell))
    return FOUND
