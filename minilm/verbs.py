"""The kind of command that every verb of ``minilm`` is, and what verbs share."""

from __future__ import annotations

import sys
from typing import Any

import click

from minilm.errors import UserError
from minilm.terminal import printable


class Verb(click.Command):
    """A verb that prints errors which the user can fix in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:  # the reader of the output has ended
            raise
        except OSError as error:  # a full disk, a folder that cannot be written
            if error.strerror is None:
                raise
            place = f"{printable(str(error.filename))}: " if error.filename else ""
            raise click.ClickException(f"{place}{error.strerror}") from error
        except KeyboardInterrupt as stop:
            from minilm.training.console import signal_of

            click.echo("interrupted", err=True)
            sys.exit(128 + signal_of(stop))


class Verbs(click.Group):
    """The group whose commands are all of that kind."""

    command_class = Verb


def example(text: str) -> str:
    """An example for ``--help``, kept as it stands."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in text.splitlines())


DEVICE = click.option("--device", default="auto", show_default=True, help='"cpu", "cuda", "mps" or "auto".')


def part_of(shard: str) -> tuple[int, int]:
    """``2/3`` as numbers. Raises UserError if it is no part of several."""
    numbers = [int(n) if n.isdecimal() else 0 for n in shard.split("/")]
    part, parts = numbers if len(numbers) == 2 else (0, 0)
    if not 1 <= part <= parts:
        raise UserError(f'--shard must be a part and their number, such as 1/2, got "{shard}"')
    return part, parts
