"""X6: rendering costs a bounded time, and twice the text at most about twice of it."""

from __future__ import annotations

import gc
import time

import pytest

from chat import rendering
from chat.rendering import render, render_block, split

pytestmark = pytest.mark.slow

N = 100_000

HOSTILE = {
    "quotes": lambda n: ">" * n + "\n",
    "spaced quotes": lambda n: "> " * (n // 2) + "\n",
    "brackets": lambda n: "[" * n,
    "links in links": lambda n: "[a](" * (n // 4),
    "images in images": lambda n: "![" * (n // 5) + "a" + "](b)" * (n // 10),
    "stars": lambda n: "*" * n,
    "open emphasis": lambda n: "**a *b" * (n // 6),
    "underscores": lambda n: "_a " * (n // 3),
    "divs": lambda n: "<div>" * (n // 5),
    "divs on lines": lambda n: "<div>\n" * (n // 6),
    "comments": lambda n: "<!--" * (n // 4),
    "ticks of every length": lambda n: "".join("`" * i + " " for i in range(int((2 * n) ** 0.5))),
    "lists in lists": lambda n: "+ " * (n // 2),
    "deep lists": lambda n: "".join(" " * (2 * i) + "- a\n" for i in range(int(n**0.5))),
    "lists in quotes": lambda n: "> - " * (n // 4),
    "dollars": lambda n: "$a " * (n // 3),
    "open display math": lambda n: "$$\n" * (n // 3),
    "open bracket math": lambda n: "\\[\n" * (n // 3),
    "backslashes": lambda n: "\\" * n,
    "references": lambda n: "&#" * (n // 2),
    "ampersands": lambda n: "& " * (n // 2),
    "wide table": lambda n: "|a" * 500 + "\n" + "|-" * 500 + "\n" + "|b\n" * (n // 3),
    "definitions": lambda n: "[a]: http://x\n" * (n // 14),
    "fences": lambda n: "```\n" * (n // 4),
    "formulas": lambda n: "$x$ " * (n // 4),
    "addresses": lambda n: "http://a.b/" + "(" * n,
    "many addresses": lambda n: "http://a.b/c " * (n // 13),
    "overrides": lambda n: "\u202e" * n,
}


def seconds(text: str) -> float:
    """CPU time of one rendering: other processes and threads do not count, nor does collecting other tests' garbage."""
    gc.collect()
    gc.disable()
    begun = time.thread_time()
    try:
        render(text)
        return time.thread_time() - begun
    finally:
        gc.enable()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_costs_linear_time(name):
    half, whole = HOSTILE[name](N // 4), HOSTILE[name](N // 2)
    for _ in range(3):  # a busy machine may spoil one measurement
        before, after = seconds(half), seconds(whole)
        if after < 2 and (after < 0.025 or after < 3 * before):
            return
    pytest.fail(f"{before:.3f} s for 25 kB, {after:.3f} s for 50 kB")


def test_many_ampersands_come_out_as_few_do(monkeypatch):
    text = "&#" * 3_000 + " [x](https://a.example/?q=1&r=2&amp;s=3) `a&b` <b>&lt; &copy; &amp;amp; &#xFDD4; \ufdd4\n"
    quick = render(text)
    monkeypatch.setattr(rendering, "MANY_AMPERSANDS", 10**9)
    assert render(text) == quick and "\ufdd4" not in quick


@pytest.mark.parametrize("name", ["quotes", "brackets", "stars", "divs"])
def test_100_kb_of_nesting_is_bounded(name):
    assert seconds(HOSTILE[name](N)) < 2


def test_the_sanitiser_alone_would_not_be_linear():
    """Why nesting is capped before it: the same sanitiser needs four times as long for twice the depth.

    Sixteen times for four times, so that what else the machine does meanwhile cannot make up the difference.
    """

    def once(depth: int) -> float:
        begun = time.process_time()
        rendering._SANITISER.clean("<div>" * depth)
        return time.process_time() - begun

    def cost(depth: int) -> float:
        return min(once(depth) for _ in range(3))

    assert cost(8_000) > 9 * cost(2_000), "linear would be 4"


def test_nesting_is_capped_in_what_is_sent():
    html = render("".join(" " * (2 * i) + "- a\n" for i in range(100)))
    assert html.count("<ul>") == rendering.MAX_DEPTH // 2
    assert html.count("a") >= 100  # nothing is lost
    assert render(">" * 1000 + " x").count("<blockquote>") == rendering.MAX_DEPTH


def test_a_block_beyond_the_cap_is_shown_as_plain_text():
    html = render("*a* " * (rendering.MAX_BLOCK // 4 + 1))
    assert html.startswith('<pre class="plain">*a* *a* ')
    assert "<em>" not in html


def test_a_long_code_block_is_shown_plain_and_a_dense_one_is_coloured_as_far_as_the_cap():
    long = "x = 'a long line of text'\n" * (rendering.MAX_HIGHLIGHT // 26 + 2)
    assert "<span class=" not in render(f"```python\n{long}```\n")
    dense = "1;" * (rendering.MAX_TOKENS // 2 + 2000)
    html = render(f"```js\n{dense}\n```\n")
    assert 0 < html.count('<span class="m">') <= rendering.MAX_TOKENS // 2
    assert html.count("1") == dense.count("1")


def test_an_answer_in_tiny_pieces_costs_little_more_than_its_length():
    """Splitting only ever looks at the tail, so 30 kB in 3,000 pieces split no more text than a few times 30 kB."""
    block = "Some words, **bold** and `code`, and a [link](https://example.org).\n\n"
    text, tail, seen, closed = block * 430, "", 0, []
    for at in range(0, len(text), 10):
        tail += text[at : at + 10]
        seen += len(tail)
        step = split(tail)
        closed += step.closed
        tail = step.tail
    assert "".join(closed) + tail == text
    assert seen < 12 * len(text)
    assert len(closed) == 429


def test_a_reader_waits_longer_for_a_longer_tail():
    assert rendering.pause_after("") == pytest.approx(0.066)
    assert rendering.pause_after("x" * 100_000) == pytest.approx(1.066)


def test_a_usual_answer_is_rendered_in_milliseconds():
    text = "A paragraph with **bold**, `code` and $x^2$.\n\n- one\n- two\n\n" * 160  # 10 kB
    assert 9_000 < len(text) < 11_000
    assert seconds(text) < 0.2
    assert render_block(text) != ""
