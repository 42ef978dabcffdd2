"""A page: a question, its answer, and what the answer rests on; as Markdown, and as one HTML file.

The HTML file needs nothing but itself: pictures are embedded as data, and a policy in its head forbids every request.
It is readable on a phone and on paper, in light and in dark.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape as escape_html
from pathlib import Path

from minilm.reporting.tables import escape, markdown_table


@dataclass(frozen=True)
class Table:
    """Cells of plain text; the first ``left`` columns are flush left, the others are numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    note: str = ""  # what the cells mean


@dataclass(frozen=True)
class Picture:
    """A PNG with an SVG of the same name beside it."""

    path: Path
    text: str  # what it shows, for those who do not see it


@dataclass(frozen=True)
class Folded:
    """Text as it stands, such as a config, shown when its title is clicked."""

    title: str
    text: str


Part = str | Table | Picture | Folded  # text: a paragraph


@dataclass(frozen=True)
class Section:
    """What belongs together, under a title."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Page:
    """Everything there is to say."""

    title: str
    question: str
    answer: str
    sections: Sequence[Section]


def markdown(page: Page, folder: Path) -> str:
    """The page as Markdown that lies in ``folder``, which its pictures are named from."""
    blocks = [f"# {escape(page.title)}"]
    blocks += [f"*{escape(page.question)}*"] if page.question else []
    blocks += [f"**{escape(page.answer)}**"] if page.answer else []
    for section in page.sections:
        blocks.append(f"## {escape(section.title)}")
        blocks += [_markdown_part(part, folder) for part in section.parts]
    return "\n\n".join(blocks) + "\n"


def _markdown_part(part: Part, folder: Path) -> str:
    if isinstance(part, Table):
        cells = [[escape(cell) for cell in row] for row in part.rows]
        table = markdown_table([escape(cell) for cell in part.header], cells, part.left)
        return f"{table}\n\n{escape(part.note)}" if part.note else table
    if isinstance(part, Picture):
        return f"![{escape(part.text)}]({part.path.relative_to(folder).as_posix()})"
    if isinstance(part, Folded):
        return f"<details><summary>{escape_html(part.title)}</summary>\n\n```\n{part.text.strip()}\n```\n\n</details>"
    return escape(part)


def html(page: Page) -> str:
    """The page as one HTML file, pictures and all."""
    body = [f"<h1>{escape_html(page.title)}</h1>"]
    body += [f'<p class="question">{escape_html(page.question)}</p>'] if page.question else []
    body += [f'<p class="answer">{escape_html(page.answer)}</p>'] if page.answer else []
    for section in page.sections:
        body += ["<section>", f"<h2>{escape_html(section.title)}</h2>", *map(_html_part, section.parts), "</section>"]
    return _FRAME.format(title=escape_html(page.title), style=_STYLE, body="\n".join(body))


def _html_part(part: Part) -> str:
    if isinstance(part, Table):
        return _html_table(part)
    if isinstance(part, Picture):
        data = base64.b64encode(part.path.with_suffix(".svg").read_bytes()).decode()
        picture = f'<img alt="{escape_html(part.text)}" src="data:image/svg+xml;base64,{data}">'
        return f'<div class="scroll" tabindex="0" role="region" aria-label="picture">{picture}</div>'
    if isinstance(part, Folded):
        title, text = escape_html(part.title), escape_html(part.text.strip())
        return f"<details><summary>{title}</summary><pre>{text}</pre></details>"
    return f"<p>{escape_html(part)}</p>"


def _html_table(table: Table) -> str:
    def row(cells: Iterable[str], tag: str) -> str:
        shown = (
            f"<{tag}{' class=text' if i < table.left else ''}>{escape_html(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )
        return f"<tr>{''.join(shown)}</tr>"

    rows = "\n".join(row(cells, "td") for cells in table.rows)
    note = f'<p class="note">{escape_html(table.note)}</p>' if table.note else ""
    # Tables and pictures scroll by themselves where they are wider than the screen; the keyboard reaches them too.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="table"><table>\n<thead>{row(table.header, "th")}'
        f"</thead>\n<tbody>\n{rows}\n</tbody></table></div>{note}"
    )


_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --quiet: #5c5c5c; --line: #d0d0d0; --box: #f3f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #161616; --quiet: #a8a8a8; --line: #444; --box: #232629; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem 1.25rem 4rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
.question { font-style: italic; color: var(--quiet); }
.answer { background: var(--box); border-left: .3rem solid #0072b2; padding: .8rem 1rem; font-size: 1.1rem; }
.note { color: var(--quiet); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
td { white-space: nowrap; }
td.text { white-space: normal; min-width: 8rem; }
th { vertical-align: bottom; }
th.text, td.text { text-align: left; }
img { display: block; max-width: 100%; height: auto; margin: 1rem 0; background: #fff; border-radius: .4rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; }
pre { overflow-x: auto; background: var(--box); padding: .8rem; font-size: .85rem; }
@media (max-width: 40rem) { img { max-width: none; max-height: 22rem; } }
@media print { details { display: none; } }
"""
