"""The `stage2` command: the group of all commands, and errors turned into one sentence and an exit code.

The commands stand beside what they call, in `store/commands`, `extract/commands` and `classify/commands`. Each imports
what it needs when it runs, so that `--help` answers at once. Exit codes: `configs/errors.py`.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from classify.commands import experiments, results, training
from configs.process.failures import Failure, failure_of, sigterm_interrupts
from configs.process.streams import check_address_space, run_and_exit
from extract.commands import extraction, stores
from store.commands.store_group import store_group


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 110,
        "token_normalize_func": lambda token: token.replace("-", "_"),  # accept hyphens in options too
    }
)
@click.version_option(package_name="stage2")
def stage2() -> None:
    """Recognise what pairs of people do together: extract visual features once, then train on them in seconds."""


for _command in (
    *(extraction.extract, extraction.synth, store_group),
    *(training.train, training.finetune, training.run),
    *(results.evaluate, results.predict, results.report, results.export),
    *(experiments.compare, experiments.demo),
):
    stage2.add_command(_command)
for _command in (stores.verify, stores.repair):
    store_group.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits. A failure is printed as one sentence; with --json also as an object."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        check_address_space(arguments)
        with sigterm_interrupts():
            code: int | None = stage2.main(arguments, prog_name="stage2", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = _fail(Failure(error.format_message(), error.exit_code), arguments)
    except (Exception, KeyboardInterrupt) as error:
        cause = (error.__cause__ or KeyboardInterrupt()) if isinstance(error, click.Abort) else error
        failure = failure_of(cause, arguments)
        click.echo(failure.line, err=True)
        code = _fail(failure, arguments)
    sys.exit(code or 0)


def _fail(failure: Failure, arguments: Sequence[str]) -> int:
    if "--json" in arguments and os.environ.get("RANK", "0") == "0":
        click.echo(json.dumps({"error": failure.sentence, "exit_code": failure.exit_code}, indent=1))
    return failure.exit_code


def process(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script: `main`, ended by `run_and_exit`."""
    run_and_exit(lambda: main(arguments))


if __name__ == "__main__":
    process()
