"""A page says the same as Markdown and as HTML, whatever its texts are, and needs no other file."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.reporting.page import (
    Block,
    Bullets,
    Code,
    Folded,
    Page,
    Picture,
    Section,
    Span,
    Table,
    html,
    markdown,
    markdown_block,
    save_page,
    terminal_table,
)


def page_of(*blocks: Block) -> Page:
    return Page("Title", "", "", [Section("", blocks)])


class Text(HTMLParser):
    """The tags of a page's body with their text, and the text alone."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(source.partition("<main>")[2].partition("</main>")[0])

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("block", "in_markdown", "in_html"),
    [
        ("a *b*", r"a \*b\*", "<p>a *b*</p>"),
        (Span("x_y", "code"), "`x_y`", "<p><code>x_y</code></p>"),
        (["so ", Span("a | b"), ", not"], r"so **a \| b**, not", "<p>so <strong>a | b</strong>, not</p>"),
        (Span("all", "", link="a.csv"), "[all](a.csv)", '<p><a href="a.csv">all</a></p>'),
        (Span("a`b", "code"), "``a`b``", "<p><code>a`b</code></p>"),
        (Code("`` ``` `"), "````\n`` ``` `\n````", "<pre>`` ``` `</pre>"),
        (Code("x = 1\n", "toml"), "```toml\nx = 1\n```", "<pre>x = 1</pre>"),
        (Bullets(["<a>", Span("b", "em")]), "- \\<a\\>\n- *b*", "<ul><li>&lt;a&gt;</li><li><em>b</em></li></ul>"),
        (
            Folded("More", Table(["", ""], [["k", "v"]], left=2)),
            "<details><summary>More</summary>\n\n|  |  |\n|---|---|\n| k | v |\n\n</details>",
            "<table>\n<tbody>\n<tr><td class=text>k</td><td class=text>v</td></tr>\n</tbody></table>",
        ),
        (
            Table(["run", "test\nF1"], [["a" * 31, Span("0.5")]], note="±: spread."),
            f"| run | test F1 |\n|---|---:|\n| {'a' * 31} | **0.5** |\n\n±: spread.",
            f"<tr><td class=long>{'a' * 31}</td><td><strong>0.5</strong></td></tr>",
        ),
        (Table(["a", "b"], []), "| a | b |\n|---|---:|", "<thead><tr><th class=text>a</th><th>b</th></tr></thead>"),
    ],
)
def test_every_block_is_shown_in_both_forms(block: Block, in_markdown: str, in_html: str) -> None:
    assert markdown_block(block) == in_markdown
    assert markdown(page_of(block), Path()) == f"# Title\n\n{in_markdown}\n"
    assert in_html in html(page_of(block))


def test_a_table_for_the_terminal_has_plain_text() -> None:
    assert terminal_table(Table(["", "F1"], [["a", Span("0.5")], [["b", Span("!", "em")], "1"]])) == (
        "     F1\n-------\na   0.5\nb!    1"
    )


anything = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@given(anything, anything, anything)
def test_any_text_is_shown_as_it_is_and_adds_no_tag(first: str, second: str, third: str) -> None:
    plain = Text(html(page_of("a", Table(["a"], [[["a", Span("a")]]]), Bullets(["a"]), Folded("a", Code("a")))))
    page = page_of(first, Table([second], [[[third, Span(first)]]]), Bullets([second]), Folded(third, Code(first)))
    shown = Text(html(page))
    assert shown.tags == plain.tags
    for text in (first, second, third):
        assert text in shown.text
    assert len(markdown(page, Path()).splitlines()) >= 9


def test_headlines_come_first_and_a_section_without_a_title_has_none(tmp_path: Path) -> None:
    page = Page("T & U", "How?", "So.", [Section("", ["a"]), Section("Next", ["b"])])
    assert markdown(page, tmp_path) == "# T \\& U\n\n*How?*\n\n**So.**\n\na\n\n## Next\n\nb\n"
    assert re.findall(r"<(h1|h2|p)[^>]*>(.*?)</", html(page)) == [
        ("h1", "T &amp; U"), ("p", "How?"), ("p", "So."), ("p", "a"), ("h2", "Next"), ("p", "b"),
    ]  # fmt: skip


def test_a_picture_is_embedded_as_the_svg_beside_it_or_as_itself(tmp_path: Path) -> None:
    picture = Picture(tmp_path / "figures" / "a b.png", "What it shows")
    picture.path.parent.mkdir()
    picture.path.write_bytes(b"png")
    path = save_page(page_of(picture), tmp_path, "page")
    assert '<img alt="What it shows" src="data:image/png;base64,cG5n">' in path.read_text()
    assert "![What it shows](figures/a%20b.png)" in path.with_suffix(".md").read_text()
    picture.path.with_suffix(".svg").write_bytes(b"svg")
    assert "data:image/svg+xml;base64,c3Zn" in html(page_of(picture))
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html(page_of(picture))
