"""Answer the rows of a table that a request sends, as ``minilm predict RUN --file IN --out OUT`` does.

The table is kept in a temporary file while its rows are answered, some at a time, in turn with the batches of texts.
The answer begins with the first rows. It is the table itself; a page asks for lines of JSON instead, which also report:

    {"rows": 3}                              the rows of the table
    {"text": "text,predicted\\nfine,..."}     a part of the answered table
    {"done": 2}                              the rows that are answered so far
    {"report": ["3 rows: ..."]}              the messages about rows without an answer, and texts that were cut
    {"error": "..."}                         an error after the answer has begun
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from minilm.data.readers import ending
from minilm.errors import UserError, shortened
from minilm.evaluation.predictor import Predictor
from minilm.runs.predict import AnsweredTable, Done, TableJob, open_table
from minilm.serving.api import Refusal
from minilm.serving.batcher import Batcher
from minilm.training.console import say

ROWS = 64  # answered at a time, between two batches of texts
FORMS = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}  # ending -> output


class TableResponse(StreamingResponse):
    """An answer in parts, after which ``ended`` is called: also if the client has gone before the first part."""

    def __init__(
        self, parts: AsyncGenerator[bytes, None], ended: Callable[[], None], headers: Mapping[str, str], media_type: str
    ) -> None:
        super().__init__(parts, headers=headers, media_type=media_type)
        self.parts, self.ended = parts, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.ended()
            await self.parts.aclose()


class SentTable:
    """A table of a request, in a temporary folder."""

    def __init__(self, name: str) -> None:
        """name: the file's name at its owner's, whose ending is the format. Raises Refusal for other formats."""
        suffix = ending(Path(name))
        if suffix not in FORMS or name.lower().endswith(".gz"):
            raise Refusal(400, f"{shortened(name)}: send a table that ends in {', '.join(FORMS)} (the parameter name)")
        self.name, self.form = shortened(name), FORMS[suffix]
        self.folder = TemporaryDirectory(prefix="minilm-table-", ignore_cleanup_errors=True)
        self.path = Path(self.folder.name) / f"table{suffix}"

    @property
    def answered_name(self) -> str:
        """The name of the answered file."""
        stem = Path(self.name).name.rpartition(".")[0].encode("ascii", "replace").decode()
        return f"{''.join(c if c.isalnum() or c in '-_.' else '_' for c in stem)}-labelled.{self.form}"

    def message(self, text: str) -> str:
        """A message that names the file as its owner does."""
        return text.replace(str(self.path), self.name)

    def open(self, predictor: Predictor, run: Path, column: str) -> AnsweredTable:
        """The table, before its first row is answered. column: of the texts; "": the run's. Raises Refusal."""
        job = TableJob(self.path, self.path.with_name(f"out.{self.form}"), column, naming="column=NAME")
        try:
            return open_table(predictor.counted_anew(), run, job)
        except UserError as error:
            raise Refusal(400, self.message(str(error))) from None

    async def answer(self, table: AnsweredTable, batcher: Batcher, *, as_lines: bool) -> AsyncGenerator[bytes, None]:
        """Yield the answered table in parts, or with ``as_lines`` the lines of JSON above."""
        done = Done()
        blocks = table.blocks(done, ROWS, quiet=True)
        if as_lines:
            yield _line("rows", table.end)
        try:
            while (block := await batcher.run(lambda: next(blocks, None), admitted=True)) is not None:
                if as_lines:
                    yield _line("text", block.decode())
                    yield _line("done", done.tally.rows)
                else:
                    yield block
        except UserError as error:
            say(self.message(str(error)))
            if not as_lines:
                raise
            yield _line("error", self.message(str(error)))
            return
        finally:
            batcher.metrics.rows += done.tally.rows
        report = [self.message(line) for line in table.answers.report()]
        say(*(f"{self.name}: {line}" for line in report))
        if as_lines:
            yield _line("report", report)


def _line(key: str, value: object) -> bytes:
    return json.dumps({key: value}, ensure_ascii=False).encode(errors="replace") + b"\n"
