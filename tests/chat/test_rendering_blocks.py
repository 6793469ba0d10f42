"""Blocks: prefix-stable, restartable, and the same live as after a reload (I9)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat import rendering
from chat.rendering import Split, render, render_block, split

PIECES = [
    "\n", "\n\n", "- ", "* ", "+ ", "1. ", "2) ", "10. ", "> ", ">", "```", "```py\n", "\n```\n", "\n  ```\n", "~~~",
    "````", "    ", "  ", "   ", "\t", "# ", "---", "***", "===", "|a|b|", "|---|---|", "|", "$$", "$$\n", "\n$$\n", "$",
    "$a$", "\\[", "\\]", "\\(", "\\)", "x", "word ", "a\n", "*", "**", "_", "`", "``", "<div>", "</div>", "<!--",
    "<script>", "<pre>", "[a]: /u", "[a]:\n", "[a]", "[x] ", "- [ ] ", "![i](u)", "\\", "&lt;", "\r\n", "\r", "é", "😀",
    "\u2028", "\x00", "\ufdd0", "\ud83d",
]  # fmt: skip

CORPUS = {
    "paragraphs": "One.\n\nTwo\nlines.\n\n\n\nThree.",
    "headings": "# A\ntext\n## B\n\nSetext\n---\nmore\n===\n",
    "fence": "Before\n```python\nx = 1\n\n\ny = 2\n```\nafter\n",
    "longer fence around a shorter one": "````md\n```py\nx\n```\n````\nend\n",
    "tilde fence with ticks inside": "~~~\n```\nnot closed\n~~~\nend\n",
    "fence closed by fewer marks does not close": "````\n```\nstill code\n````\n\nend\n",
    "fence in a list": "1. Do\n   ```sh\n   a\n\n   b\n   ```\n2. Then\n\nend\n",
    "fence in a list, not indented": "1. Do\n```sh\na\n\nb\n```\n2. Then\n\nend\n",
    "fence in a quote": "> ```\n> a\n>\n> b\n> ```\n\nend\n",
    "unclosed fence": "text\n```js\nlet a\n\nlet b\n",
    "indented code": "text\n\n    a\n\n    b\n\nend\n",
    "loose list": "- a\n\n- b\n\n  second paragraph\n\n- c\n\nend\n",
    "nested list": "- a\n  - b\n    - c\n\n      deep\n- d\n\nend\n",
    "list becomes loose late": "- a\n- b\n- c\n\n- d\n",
    "lazy list line": "- a\nlazy\n- b\n\nend\n",
    "quote": "> a\nlazy\n> b\n\n> other\n\nend\n",
    "table": "| a | b |\n|---|--:|\n| 1 | 2 |\n| 3 | 4 |\n\nend\n",
    "table header alone": "| a | b |\n\nend\n",
    "math over lines": "Text\n\n$$\na\n+ b\n- c\n= d\n> e\n$$\n\nend\n",
    "math in brackets": "\\[\n1. a\n# b\n\\]\n\nend\n",
    "math never closed": "$$\na\n- b\n- c\n\n- d\n\nend\n",
    "math in a list": "- a\n\n  $$\n  x\n+ y\n  $$\n\n- b\n",
    "math opened in indented code of a list": "- a\n\n      $$\n- b\n$$\n\nend\n",
    "html-looking": "<div>\n\n*a*\n\n</div>\n\n<script>\nlet a\n\nlet b\n</script>\n\n<!-- open\n\nend\n",
    "definitions": "See [a][1].\n\n[1]:\nhttps://example.org\n\n[2]: https://example.com 'T'\n\nend\n",
    "windows line ends": "# A\r\n\r\n- a\r\n- b\r\n\r\nend\r\n",
    "old mac line ends": "# A\r\r- a\r- b\r\rend\r",
    "only blank": "\n \n\t\n",
    "unicode": "é 汉 😀\u2028x\u2029y\u0085z\n\nnext\n",
}  # fmt: skip


def check(text: str, cuts: list[int]) -> None:
    """Everything that must hold for `text` arriving in pieces that end at `cuts`."""
    whole = split(text)
    tail, closed, at = "", [], 0
    for cut in [*cuts, len(text)]:
        arrived = split(text[:cut])
        assert arrived.closed == whole.closed[: len(arrived.closed)], f"{text[:cut]!r} closed too much"
        step = split(tail + text[at:cut])
        closed += step.closed
        tail, at = step.tail, cut
        assert (tuple(closed), tail) == (arrived.closed, arrived.tail), f"{text[:cut]!r} differs when restarted"
    live = "".join(render_block(block) for block in closed) + render_block(tail)
    assert live == render(text)


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPUS)
def test_blocks_do_not_depend_on_how_the_text_arrived(name):
    text = CORPUS[name]
    check(text, list(range(1, len(text))))
    chance = random.Random(name)
    for _ in range(10):
        check(text, sorted(chance.sample(range(1, len(text)), min(3, len(text) - 1))))


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_any_prefix_closes_a_prefix_of_the_blocks(pieces):
    text, cuts = "".join(pieces), []
    for piece in pieces:
        cuts.append((cuts[-1] if cuts else 0) + len(piece))
    check(text, cuts)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80), st.integers(0, 80))
def test_any_text_at_all_renders_the_same_in_two_pieces(text, cut):
    check(text, [min(cut, len(text))])


def test_a_cut_that_would_break_the_property_is_noticed(monkeypatch):
    """The check is not vacuous: closing every blank line breaks a fence, and it says so."""

    def naive(text):
        parts = text.split("\n\n")
        return rendering.Split(tuple(p + "\n\n" for p in parts[:-1]), parts[-1])

    monkeypatch.setitem(globals(), "split", naive)
    with pytest.raises(AssertionError):
        check("```\na\n\nb\n```\n\nend", list(range(1, 17)))


def test_blocks_are_what_a_reader_would_call_blocks():
    assert split("# A\nOne\ntwo.\n\n- a\n\n- b\n\nEnd") == (Split(("# A\n", "One\ntwo.\n"), "\n- a\n\n- b\n\nEnd"))
    # The list closes when a whole line stands behind it.
    assert split("- a\n\n- b\n\nEnd\n").closed == ("- a\n\n- b\n",)


def test_a_fence_closes_with_its_own_last_line():
    assert split("```py\nx\n```").closed == ()
    assert split("```py\nx\n```\n").closed == ("```py\nx\n```\n",)
    assert split("```py\nx\n``\n").closed == ()
    assert split("````py\nx\n```\n").closed == ()
    assert split("~~~\nx\n```\n").closed == ()
    assert split("~~~\nx\n~~~~  \n").closed == ("~~~\nx\n~~~~  \n",)


def test_the_open_tail_shows_code_uncoloured_and_the_closed_block_coloured():
    open_ = render_block("```python\nimport os", open=True)
    assert "<code>import os</code>" in open_
    assert '<span class="k">import</span>' in render_block("```python\nimport os\n```\n").replace("import ", "import")
    assert "<span class=" not in render("```python\nimport os")  # cut off before the fence closed
