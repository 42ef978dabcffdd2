"""The command class of all verbs of ``minilm``, and options that verbs share."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from minilm.config import RunConfig
from minilm.errors import UserError, legible
from minilm.hints import quoted
from minilm.schema import hints_of, meant_key, sections_of
from minilm.terminal import open_closed_streams, printable, write_utf8
from minilm.world import started

SHARED = ("train", "finetune")  # the verbs whose work several processes share (torchrun)


class Verb(click.Command):
    """A command that prints errors which the user can fix as one line."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        given = list(args)  # click takes the words of a command line out of ``args``
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.NoSuchOption as error:
            change = _as_change(error.option_name, given)
            if not change or not any(parameter.name == "changes" for parameter in self.params):
                raise
            raise click.UsageError(f"{error.message.rstrip('.')}; write {change}", error.ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        if (here := started()).size > 1 and self.name not in SHARED:
            if here.rank == 0:
                verbs = " and ".join(SHARED)
                click.echo(f"Error: torchrun is for {verbs}; start `minilm {self.name}` without it", err=True)
            sys.exit(1)
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


def _as_change(option: str, words: Sequence[str]) -> str:
    """The change of a config that an unknown option stands for: "train.epochs=3" for "--epochs 3"; "" if none."""
    key = meant_key(RunConfig, option.lstrip("-").replace("-", "_"))
    if (section := hints_of(RunConfig).get(key)) and sections_of(section):
        key = f"{key}.source" if "source" in hints_of(section) else ""  # "--model bert", "--data a.csv"
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if key and name == option:
            follows = "VALUE" if not after or after.startswith("-") or "=" in after else after
            return quoted(f"{key}={value if equals else follows}")
    return ""


class Verbs(click.Group):
    """A group of such commands."""

    command_class = Verb

    def main(self, *args: Any, **options: Any) -> Any:
        gc.set_threshold(50_000)  # after each 700 new objects, as by default, takes a tenth of a short run
        open_closed_streams()
        write_utf8()
        return super().main(*args, **options)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _legible():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _legible():  # also while a verb's own options are parsed
            return super().invoke(ctx)


@contextlib.contextmanager
def _legible() -> Iterator[None]:
    """Cut long values in click's messages about a wrong command line, as in other messages."""
    try:
        yield
    except click.UsageError as error:
        raise click.UsageError(legible(error.format_message()), error.ctx) from None


class Name(click.ParamType):
    """A name or a path that is not empty (an unset variable in a script would be)."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value or self.fail("must not be empty", param, ctx)


class Place(Name):
    """A ``Path`` that is not empty."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Path(super().convert(value, param, ctx))


NAME, PLACE = Name(), Place()


def example(text: str) -> str:
    """An example for ``--help``, which is not wrapped."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in text.splitlines())


DEVICE = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, mps, or cuda:1 for one of several GPUs."
)


def part_of(shard: str) -> tuple[int, int]:
    """``2/3`` as two numbers. Raises UserError if it is not a valid part."""
    numbers = [int(n) if n.isdecimal() and len(n) < 10 else 0 for n in shard.split("/")]
    part, parts = numbers if len(numbers) == 2 else (0, 0)
    if not 1 <= part <= parts:
        raise UserError(f'--shard must be the number of a part and the number of parts, such as 1/2, got "{shard}"')
    return part, parts
