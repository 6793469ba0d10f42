"""What Markdown looks like as HTML, with the expected HTML written by hand."""

from __future__ import annotations

import re
from html import unescape

import pytest

from chat.rendering import render, render_block

REL = 'rel="noopener noreferrer nofollow"'


@pytest.mark.parametrize(
    ("source", "html"),
    [
        ("Hello **you** and *me*, ~~not~~ `a<b`.", "<p>Hello <strong>you</strong> and <em>me</em>, <del>not</del> <code>a&lt;b</code>.</p>"),
        ("one\ntwo  \nthree", "<p>one\ntwo<br>three</p>"),
        ("# A\n\n## B\n\n##### C", "<h3>A</h3><h4>B</h4><h6>C</h6>"),
        ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
        ("- a\n- b\n  - c", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"),
        ("- a\n\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("- [ ] do\n- [x] done", '<ul><li><span class="task">☐</span> do</li><li><span class="task">☑</span> done</li></ul>'),
        ("> a\n> b", "<blockquote><p>a\nb</p></blockquote>"),
        ("| a | b |\n|:-:|--:|\n| 1 | 2 |",
         '<div class="table-scroll" tabindex="0"><table><thead><tr><th class="center">a</th><th class="right">b</th></tr></thead>'
         '<tbody><tr><td class="center">1</td><td class="right">2</td></tr></tbody></table></div>'),
        ("[a](https://example.org/x)", f'<p><a href="https://example.org/x" {REL}>a</a><span class="link-host">example.org</span></p>'),
        ("see https://example.org/a_b_c(d).", f'<p>see <a href="https://example.org/a_b_c(d)" {REL}>https://example.org/a_b_c(d)</a>.</p>'),
        ("(https://example.org)", f'<p>(<a href="https://example.org" {REL}>https://example.org</a>)</p>'),
        ("<https://example.org>", f'<p><a href="https://example.org" {REL}>https://example.org</a></p>'),
        ("AT&amp;T &copy; &#x41;", "<p>AT&amp;T © A</p>"),
        ("", ""),
        (" \n\n", ""),
    ],
)  # fmt: skip
def test_markdown(source, html):
    assert render(source) == html


def test_reference_links_and_definitions_stay_visible():
    """The documented rule of rendering by block: nothing resolves across blocks, and nothing disappears."""
    assert render("See [the docs][1] and a note[^2].\n\n[1]: https://example.org 'Docs'\n\n[^2]: The note.") == (
        "<p>See [the docs][1] and a note[^2].</p>"
        f"<p>[1]: <a href=\"https://example.org\" {REL}>https://example.org</a> 'Docs'</p>"
        "<p>[^2]: The note.</p>"
    )


def test_a_code_block_has_its_language_a_copy_button_and_few_colours():
    assert render("```python\ndef f():\n    return 'x'  # why\n```\n") == (
        '<figure class="code"><figcaption><span>python</span><copy-button></copy-button></figcaption>'
        '<pre tabindex="0"><code><span class="k">def </span><span class="nf">f</span>():\n'
        '    <span class="k">return </span><span class="s">\'x\'  </span><span class="c"># why</span>'
        "</code></pre></figure>"
    )


def test_code_without_a_known_language_is_plain():
    assert render("```\na < b\n```") == (
        '<figure class="code"><figcaption><span>text</span><copy-button></copy-button></figcaption>'
        '<pre tabindex="0"><code>a &lt; b</code></pre></figure>'
    )
    assert "<span>klingon</span>" in render("```klingon\nx\n```")
    assert "class=" not in render("```klingon\nif x\n```").split("<pre")[1]


@pytest.mark.parametrize(
    "language", ["py", "js", "ts", "sh", "c++", "c#", "yml", "json", "sql", "html", "diff", "go", "rust", "toml"]
)
def test_common_names_of_languages_are_coloured(language):
    code = "+ 'a' # 1\n- \"b\" /* 2 */ true null <p> select"
    assert '<span class="' in render(f"```{language}\n{code}\n```\n").split("<pre")[1]


@pytest.mark.parametrize(
    "code",
    [
        "x = 1",
        "\n\n  leading",
        "trailing  \n\n",
        "tab\there",
        "<b>&amp;</b>",
        "$x$ `$$` \\(a\\)",
        "[1]: /url",
        "> > quote",
        "é 汉 😀",
        "\\n",
    ],
)
@pytest.mark.parametrize("language", ["", "python", "html", "bash", "json"])
def test_code_is_shown_character_for_character(language, code):
    """I9: what is copied from the page is what the model wrote."""
    html = render(f"````{language}\n{code}\n````\n")
    shown = unescape(re.sub(r"<[^>]*>", "", re.search(r"<code>(.*)</code>", html, re.DOTALL)[1]))
    assert shown == code


def test_quotes_deeper_than_shown_lose_no_character():
    source = ">" * 60 + " deep"
    shown = unescape(re.sub(r"<[^>]*>", "", render(source)))
    assert shown == ">" * (60 - 24) + " deep"
    assert render("```\n" + source + "\n```").count("&gt;") == 60


# -- Math ------------------------------------------------------------------------------------------------------------


def is_math(source: str) -> bool:
    return "<math" in render(source)


@pytest.mark.parametrize(
    "source",
    [
        "$0.27/$0.40 per 1M tokens",
        "$5 and $10",
        "from $5 to $10, or $5-$10, or $5–$10",
        "US$5 or A$6",
        "it costs $5 (was $7)",
        "$HOME/$USER and $PATH:$HOME",
        "| $5 | $6 |\n|---|---|\n| $1 | $2 |",
        "$ x $",
        r"\$x\$",
        "`$x$`",
        "``` \n$x$\n```",
        "$1,000$2",
        "a $ b",
        "$x",
        "$$",
        "$$ $$",
        "cheap $$ or dear $$$",
        "| a | $$ |\n|---|---|\n| b | $$ |",
        r"\[citation needed] and \[1\] in a sentence",
        r"\( never closed",
        "$a\nb$",
    ],
)
def test_this_is_not_math(source):
    assert not is_math(source)
    plain = unescape(re.sub(r"<[^>]*>", "", render(source)))
    assert plain.count("$") == source.count("$")


@pytest.mark.parametrize(
    "source",
    [
        "$x$", "$5$", "$2x = 4$", "$x_i$, and so on", "the $n$th", "($\\alpha$)", "$$x$$", "text $$x^2$$ text", r"\(x\)",
        r"\[x\]", "\\[\nx\n\\]", "$$\nx\n$$", "- $x$", "> $$\n> x\n> $$", "| $x$ |\n|---|", "**$x$**", "# $x$", "[$x$](https://a.b)",
        "costs $0.27 per $n$ tokens", r"$\mathbb{R}^+$",
    ],
)  # fmt: skip
def test_this_is_math(source):
    assert is_math(source)


def test_math_becomes_core_mathml():
    assert render("$x^2$") == ('<p><math display="inline"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math></p>')
    assert render("\\[\n\\frac{a}{b}\n\\]") == (
        '<p><math display="block"><mrow><mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac></mrow></math></p>'
    )


def test_math_may_look_like_any_markdown():
    html = render("$$\na_1 * b_2\n- c\n+ d \\\\\n> e\n# f\n1. g\n$$\n\nend\n")
    assert html.count("<math") == 1
    for tag in ("<ul>", "<ol>", "<em>", "<h3>", "<blockquote>"):
        assert tag not in html


def test_a_quoted_formula_loses_its_quote_marks():
    assert render("> $$\n> a\n> = b\n> $$") == (
        '<blockquote><p><math display="block"><mrow><mi>a</mi><mo>=</mo><mi>b</mi></mrow></math></p></blockquote>'
    )


@pytest.mark.parametrize(
    "latex",
    [
        r"\frac{a}{", r"\left(", r"\begin{matrix}", "^", "x^", "}{", r"\end{x}", "a" * 2001, "{" * 40 + "x" + "}" * 40,
        r"\unknowncommand{x}", r"\def\a{\a\a}\a", r"\newcommand{\x}{y}\x", r"\middle|",
    ],
)  # fmt: skip
def test_math_that_cannot_be_read_is_shown_as_its_source(latex):
    html = render(f"$${latex}$$")
    assert "<math" not in html or latex == "}{"
    if "<math" not in html:
        assert unescape(re.sub(r"<[^>]*>", "", html)) == f"$${latex}$$"


def test_macros_do_not_leak_from_one_formula_to_the_next():
    """S8 in small: the converter keeps no definition of another user's formula."""
    render(r"$\newcommand{\secret}{42}\secret$ $\def\secret{42}$ $\DeclareMathOperator{\secret}{42}$")
    assert "42" not in render(r"$\secret$")


@pytest.mark.parametrize("latex", [r"\begin{aligned} a &= b \\ c &= d \end{aligned}", r"\arg\max_x f", r"a \nonumber"])
def test_what_models_write_often_is_understood(latex):
    html = render(f"$${latex}$$")
    assert "<math" in html and "&amp;" not in html and "\\" not in html


def test_half_a_formula_is_shown_as_it_is_while_it_streams():
    assert render_block("so $$x^", open=True) == "<p>so $$x^</p>"
