"""A page: sections of paragraphs, tables, pictures and code; as Markdown and as one HTML file.

The HTML file is self-contained: pictures are embedded as data, and a policy in its head forbids every request.
It is readable on a phone and on paper, in light and in dark.
"""

from __future__ import annotations

import base64
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape as escape_html
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from minilm.atomic import atomic
from minilm.reporting.tables import escape, markdown_table, text_table
from minilm.terminal import printable


@dataclass(frozen=True)
class Span:
    """A part of a text with another style, or with a link to a file in the page's folder."""

    text: str
    style: Literal["strong", "em", "code", ""] = "strong"
    link: str = ""


Prose = str | Span | Sequence[str | Span]  # one after the other


@dataclass(frozen=True)
class Table:
    """A table of text. The first ``left`` columns are aligned left; the others contain numbers and are aligned right.

    If all cells of the header are empty, the table has no header.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Prose]]
    left: int = 1
    note: str = ""  # what the cells mean


@dataclass(frozen=True)
class Picture:
    """A PNG. If an SVG of the same name is beside it, the HTML file shows that."""

    path: Path
    text: str  # the alternative text


@dataclass(frozen=True)
class Code:
    """Text in a fixed-width font, such as a config or commands."""

    text: str
    language: str = ""  # such as "toml"


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[Prose]


@dataclass(frozen=True)
class Folded:
    """A block that is hidden until its title is clicked."""

    title: str
    block: Block


@dataclass(frozen=True)
class Weighted:
    """A text whose words are coloured: blue if they speak for something, orange if against it.

    Each piece has a weight from -1 to 1, or None. In Markdown, words with a weight of at least a half are bold, and
    those of minus a half are struck out.
    """

    pieces: Sequence[tuple[str, float | None]]


Block = Prose | Table | Picture | Code | Bullets | Folded | Weighted  # prose: a paragraph


@dataclass(frozen=True)
class Section:
    """Blocks under a title; the first section of a page may have none."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A title, a question and its answer (or neither), and sections."""

    title: str
    question: str
    answer: str
    sections: Sequence[Section]


def save_page(page: Page, folder: Path, name: str) -> Path:
    """Save the page as ``NAME.md`` and ``NAME.html``; return the latter. Its pictures are in the folder."""
    for ending, text in (("md", markdown(page, folder)), ("html", html(page))):
        with atomic(folder / f"{name}.{ending}") as file:
            file.write(text.encode())
    return folder / f"{name}.html"


def terminal_table(table: Table) -> str:
    """A table for the terminal, without its note. If the output is a terminal, names are shortened to its width."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    return text_table(table.header, [[_plain(cell) for cell in row] for row in table.rows], table.left, width)


def _plain(prose: Prose) -> str:
    if isinstance(prose, str):
        return prose
    return prose.text if isinstance(prose, Span) else "".join(map(_plain, prose))


# --- Markdown ---


def markdown(page: Page, folder: Path) -> str:
    """The page as Markdown. The paths of pictures are relative to ``folder``."""
    blocks = [f"# {escape(page.title)}"]
    blocks += [f"*{escape(page.question)}*"] if page.question else []
    blocks += [f"**{escape(page.answer)}**"] if page.answer else []
    for section in page.sections:
        blocks += [f"## {escape(section.title)}"] if section.title else []
        blocks += [markdown_block(block, folder) for block in section.blocks]
    return "\n\n".join(blocks) + "\n"


def markdown_block(block: Block, folder: Path = Path()) -> str:
    """One block as Markdown."""
    if isinstance(block, Table):
        rows = [[_markdown_prose(cell) for cell in row] for row in block.rows]
        table = markdown_table([escape(cell) for cell in block.header], rows, block.left)
        return f"{table}\n\n{escape(block.note)}" if block.note else table
    if isinstance(block, Picture):
        return f"![{escape(block.text)}]({quote(block.path.relative_to(folder).as_posix())})"
    if isinstance(block, Code):
        fence, code = _fence(block.text, 3), printable(block.text.strip(), keep="\n\t")
        return f"{fence}{block.language}\n{code}\n{fence}"
    if isinstance(block, Bullets):
        return "\n".join(f"- {_markdown_prose(item)}" for item in block.items)
    if isinstance(block, Weighted):
        return "".join(_markdown_piece(text, weight) for text, weight in block.pieces).strip()
    if isinstance(block, Folded):
        inner = markdown_block(block.block, folder)
        return f"<details><summary>{escape_html(block.title)}</summary>\n\n{inner}\n\n</details>"
    return _markdown_prose(block)


def _markdown_piece(text: str, weight: float | None) -> str:
    mark = "**" if (weight or 0) >= STRONG else "~~" if (weight or 0) <= -STRONG else ""
    return f"{mark}{escape(text, strip=False)}{mark}"


def _fence(code: str, least: int) -> str:
    """A fence of more backticks than the code contains in a row."""
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", code))])


_MARKS = {"strong": "**", "em": "*", "": ""}


def _markdown_prose(prose: Prose) -> str:
    if isinstance(prose, str):
        return escape(prose)
    if isinstance(prose, Span):
        if prose.style == "code":
            mark, shown = _fence(prose.text, 1), printable(prose.text)
        else:
            mark, shown = _MARKS[prose.style], escape(prose.text)
        text = f"{mark}{shown}{mark}"
        return f"[{text}]({prose.link})" if prose.link else text
    return "".join(escape(part, strip=False) if isinstance(part, str) else _markdown_prose(part) for part in prose)


# --- HTML ---

STRONG = 0.5  # a weight
WRAPPED = 30  # characters: a column of text with a longer cell is wrapped


def html(page: Page) -> str:
    """The page as one HTML file, including its pictures."""
    body = [f"<h1>{escape_html(page.title)}</h1>"]
    body += [f'<p class="question">{escape_html(page.question)}</p>'] if page.question else []
    body += [f'<p class="answer">{escape_html(page.answer)}</p>'] if page.answer else []
    for section in page.sections:
        title = [f"<h2>{escape_html(section.title)}</h2>"] if section.title else []
        body += ["<section>", *title, *map(_html_block, section.blocks), "</section>"]
    shown = printable("\n".join(body), keep="\n\t")
    return _FRAME.format(title=escape_html(printable(page.title)), style=_STYLE, body=shown)


def answer_in(saved: str) -> str:
    """The answer of a page that was saved as HTML, as HTML; empty if the page has none."""
    found = re.search(r'<p class="answer">(.*?)</p>', saved, re.DOTALL)
    return found[1] if found else ""


def fragment(blocks: Sequence[Block]) -> str:
    """Blocks as HTML without a page around them, for a notebook. It contains its pictures."""
    return printable("\n".join(map(_html_block, blocks)), keep="\n\t")


def _html_block(block: Block) -> str:
    if isinstance(block, Table):
        return _html_table(block)
    if isinstance(block, Picture):
        return _scrolling("picture", f'<img alt="{escape_html(block.text)}" src="{_data_url(block.path)}">')
    if isinstance(block, Code):
        return _scrolling("code", f"<pre>{escape_html(block.text.strip())}</pre>")
    if isinstance(block, Bullets):
        return f"<ul>{''.join(f'<li>{_html_prose(item)}</li>' for item in block.items)}</ul>"
    if isinstance(block, Weighted):
        return f'<p class="weighted">{"".join(_html_piece(text, weight) for text, weight in block.pieces)}</p>'
    if isinstance(block, Folded):
        return f"<details><summary>{escape_html(block.title)}</summary>{_html_block(block.block)}</details>"
    return f"<p>{_html_prose(block)}</p>"


def _html_piece(text: str, weight: float | None) -> str:
    """A word on its colour; the stronger its weight, the stronger the colour."""
    if weight is None:
        return escape_html(text)
    colour = "0 114 178" if weight > 0 else "230 130 0"
    style = f"background:rgb({colour} / {0.6 * abs(weight):.2f})"
    return f'<span style="{style}" title="{weight:+.2f}">{escape_html(text)}</span>'


def _html_prose(prose: Prose) -> str:
    if isinstance(prose, str):
        return escape_html(prose)
    if isinstance(prose, Span):
        text = escape_html(prose.text)
        text = f"<{prose.style}>{text}</{prose.style}>" if prose.style else text
        return f'<a href="{escape_html(prose.link)}">{text}</a>' if prose.link else text
    return "".join(map(_html_prose, prose))


def _data_url(picture: Path) -> str:
    """The content of a picture as a data URL."""
    svg = picture.with_suffix(".svg")
    kind, path = ("svg+xml", svg) if svg.exists() else ("png", picture)
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _html_table(table: Table) -> str:
    longest = [max((len(_plain(row[i])) for row in table.rows), default=0) for i in range(len(table.header))]
    kinds = [f" class={'long' if n > WRAPPED else 'text'}" if i < table.left else "" for i, n in enumerate(longest)]

    def row(cells: Iterable[Prose], tag: str) -> str:
        shown = (f"<{tag}{kind}>{_html_prose(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))
        return f"<tr>{''.join(shown)}</tr>"

    head = f"<thead>{row(table.header, 'th')}</thead>\n" if any(table.header) else ""
    rows = "\n".join(row(cells, "td") for cells in table.rows)
    note = f'<p class="note">{escape_html(table.note)}</p>' if table.note else ""
    return _scrolling("table", f"<table>\n{head}<tbody>\n{rows}\n</tbody></table>") + note


def _scrolling(name: str, content: str) -> str:
    """A part of the page that scrolls if it is wider than the screen, also by keyboard."""
    kind = "scroll wide" if name == "table" else "scroll"
    return f'<div class="{kind}" tabindex="0" role="region" aria-label="{name}">{content}</div>'


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

# Of every page of minilm; a page's own rules follow them.
COMMON_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --quiet: #5c5c5c; --line: #d0d0d0; --box: #f3f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e8; --paper: #161616; --quiet: #a8a8a8; --line: #444; --box: #232629; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
main { margin: 0 auto; padding: 1rem 1.25rem 4rem; overflow-wrap: break-word; }
h1 { line-height: 1.25; }
h2 { margin: 2.2rem 0 .6rem; }
pre { overflow-x: auto; background: var(--box); padding: .8rem; font-size: .85rem; }
"""
_STYLE = COMMON_STYLE + """\
main { max-width: 62rem; }
h1 { font-size: 1.6rem; }
h2 { font-size: 1.2rem; }
.question { font-style: italic; color: var(--quiet); }
.answer { background: var(--box); border-left: .3rem solid #0072b2; padding: .8rem 1rem; font-size: 1.1rem; }
.note { color: var(--quiet); font-size: .9rem; }
.scroll { overflow-x: auto; }
/* A table may be wider than the text, up to the window; only beyond that it scrolls. */
.wide { width: max-content; min-width: 100%; max-width: min(100vw - 3.5rem, 96rem); }
.wide { margin-left: 50%; transform: translateX(-50%); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
td { white-space: nowrap; }
td.long { white-space: normal; min-width: 16rem; max-width: 36rem; }
th { vertical-align: bottom; }
.text, .long { text-align: left; }
img { display: block; max-width: 100%; height: auto; margin: 1rem 0; background: #fff; border-radius: .4rem; }
.weighted { line-height: 1.9; margin-top: .2rem; }
.weighted span { border-radius: .2rem; padding: .1rem .05rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; }
@media (max-width: 40rem) { img { max-width: none; max-height: 22rem; } td.text { white-space: normal; } }
@media print { details { display: none; } }
"""
