"""Cleaning: each step does the one thing it is called by."""

import re
import time

import pytest

from minilm.data.cleaning import STEPS, cleaner
from minilm.errors import UserError


@pytest.mark.parametrize(
    ("step", "text", "cleaned"),
    [
        ("entities", "Tom &amp; Jerry&#39;s", "Tom & Jerry's"),
        ("tags", "a<br/>b <i>c</i>, 1 < 2 > 0", "a b  c , 1 < 2 > 0"),
        ("tags", "I <3 this song and you > me", "I <3 this song and you > me"),
        ("tags", "<!-- a > b --><A HREF='x'\ny>hm</A> <- >_< <>", "hm  <- >_< <>"),
        ("urls", "see https://x.org/a?b=1 or www.x.org", "see   or"),
        ("urls", "Awww...so cute, www...lol, awww.x", "Awww...so cute, www...lol, awww.x"),
        ("urls", "HTTP://X.org WWW.x.org (Https://x.org/a) lookhttp://t.co/a", "(  look"),
        ("users", "@ola pisz na ola@example.org", "pisz na ola@example.org"),
        ("symbols", "żółw #1 (50%)!", "żółw  1 (50 )!"),
        ("whitespace", " a \t\n b\u00a0c ", "a b c"),
        ("lower", "ŻÓŁW", "żółw"),
    ],
)
def test_steps(step, text, cleaned):
    assert cleaner([step])(text) == cleaned


def test_every_step_is_tested():
    assert {mark[0] for mark in test_steps.pytestmark[0].args[1]} == set(STEPS)


def test_steps_run_in_one_order_whatever_the_order_they_are_named_in():
    ugly = "&lt;b&gt; x  @me\thttps://a.b/c&amp;d"
    assert cleaner(["entities", "tags", "urls", "users", "whitespace"])(ugly) == "x"
    assert cleaner(["whitespace", "users", "urls", "tags", "entities"])(ugly) == "x"
    assert cleaner([])(" x ") == "x"


def test_an_unknown_step_is_an_error():
    with pytest.raises(UserError, match=r'data\.clean: unknown step "url" .did you mean "urls"'):
        cleaner(["url"])


def test_comments_without_an_end_are_read_once():
    text = "<!--" * 10_000  # a quadratic search needs several seconds
    started = time.process_time()
    assert cleaner(["tags"])(text) == text
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "text", ["a<!-- b", "<!-->x--><!--<b>--><b", "a<!--x-->b<!--y--", "<!--a--><!--<i>", "<!--a>b"]
)
def test_comments_are_those_of_a_search_for_their_end(text):
    published = re.sub(r"<!--.*?-->|</?[A-Za-z!][^<>]*>", " ", text, flags=re.DOTALL)
    assert cleaner(["tags"])(text) == published.strip()
