"""How a command's process ends: its exit code, one sentence for what went wrong, and no time lost."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import click

from configs.errors import Stage2Error

INTERRUPTED = 130


def exit_code(command: click.Command, arguments: Sequence[str] | None) -> int:
    """Runs the command line, prints one sentence where it fails, and returns the documented exit code."""
    try:
        code: int | None = command.main(args=arguments, prog_name="stage2", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; what was extracted is kept, and the same extraction goes on from there", err=True)
        code = INTERRUPTED
    except Stage2Error as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    return code or 0


def end_at_once(main: Callable[[], None]) -> NoReturn:
    """Runs `main` and leaves with its exit code, without taking apart what it has imported.

    Python would let go of PyTorch's and torchvision's million objects one by one, which takes over a second; nothing
    waits for that. What was printed and logged is written first; where that fails, Python ends the process and says so.
    """
    try:
        main()
        code: str | int | None = 0
    except SystemExit as stop:
        code = stop.code
    if code is not None and not isinstance(code, int):  # a text, which Python prints
        sys.exit(code)
    try:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        sys.exit(code)
    os._exit(code or 0)
