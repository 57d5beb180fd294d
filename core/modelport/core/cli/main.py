"""The entry point `modelport`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import rich_click as click
from click.exceptions import Exit

from modelport import __version__
from modelport.contract.errors import ModelportError
from modelport.core.cli.group import LazyGroup

__all__ = ["main"]


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="modelport")
@click.rich_config(help_config={"text_markup": "markdown", "max_width": 110, "padding_helptext_first_line": (0, 0, 1, 0)})
def modelport() -> None:
    """Serve any Hugging Face model, on any hardware, through any protocol.

    Try: `modelport serve --demo`, or `modelport serve org/model`.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command. What cannot work ends with one sentence and status 2; Ctrl-C with 130."""
    try:
        modelport.main(args=list(arguments) if arguments is not None else None, prog_name="modelport", standalone_mode=False)
    except Exit as finished:
        sys.exit(finished.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except ModelportError as error:
        click.echo(f"modelport: {error.message}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        # the reader (`| head`) has left; the interpreter would complain once more when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # a full disk, a folder that may not be read: nothing that a stack trace explains better
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"modelport: {where}{error.strerror or error}.", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
