"""Untrusted Markdown to safe HTML: the one renderer of the product (X1), and the only place that marks text as safe.

    render(text)        the whole message: exactly the rendered blocks of `split(text)`, one after the other
    split(text)         the blocks that can no longer change, and the tail that still can
    render_block(…)     one block, or the open tail while an answer is streaming

The page that follows a live answer and the page that is reloaded call the same three functions, so both show the same.
A streaming caller keeps only the tail: `split(tail + new)` gives what `split(everything)` would have given from there.

The way of a block: control characters made visible → math taken out → pyromark reads the Markdown → we write HTML from
its events (nothing of the source is ever copied as markup) → nh3 with our own allowlist comes last.

Rules that follow from rendering block by block:

* Reference links (`[text][1]` … `[1]: https://…`) are not resolved and definitions are not swallowed: both are shown
  as written, with the address clickable. Footnotes likewise.
* HTML is never read as HTML. `<div>` is five characters of text.
* Images are never loaded (X2). They become a link that names the host they point at.
* Math is `$$…$$`, `\\[…\\]`, `\\(…\\)`, and `$…$` where that cannot be money (see `_may_be_inline_math`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element

import nh3
import pyromark
from django.utils.safestring import SafeString, mark_safe

MAX_BLOCK = 200_000
"""Characters of one block that are read as Markdown; a longer one is shown as plain text (X6)."""
MANY_AMPERSANDS = 2_000
"""More than any prose has in one block."""

MAX_DEPTH = 24
"""Lists and quotes nested deeper than this are shown at this depth (X6: nested markup costs the sanitiser n²)."""
MAX_HIGHLIGHT = 24_000
MAX_TOKENS = 8_000
"""Characters of a code block, and words of its language, up to which it is coloured; the rest is shown plain."""
MAX_COLUMNS = 64
"""Cells of a table row that are shown: one short row of a wide table stands for hundreds of empty cells."""
MAX_MATH = 2_000
MAX_MATH_DEPTH = 16
MAX_MATH_PER_BLOCK = 400

_OPTIONS = pyromark.Options.ENABLE_TABLES | pyromark.Options.ENABLE_STRIKETHROUGH | pyromark.Options.ENABLE_TASKLISTS

# -- Characters ------------------------------------------------------------------------------------------------------

# Unicode noncharacters: `_clean` lets none through and `_no_reference` none be written, so no message can forge them.
_LT, _MATH, _END, _GT, _AMP = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3", "\ufdd4"

_NEVER = "\u202a\u202b\u202c\u202d\u202e"  # overrides and embeddings: only good for deceiving (X5)
_HIDDEN = (
    _NEVER + "\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u200b\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\u180e\u3164"
)

_CLEAN = {c: chr(0x2400 + c) for c in range(32) if c not in (9, 10, 13)} | {127: "\u2421"}
_CLEAN |= {c: "\u2426" for c in range(0x80, 0xA0) if c != 0x85} | {0x85: "\u2424"}
_CLEAN |= dict.fromkeys([*range(0xFDD0, 0xFDF0), 0xFFFE, 0xFFFF], "\ufffd")
_CLEAN |= {ord(c): f"[U+{ord(c):04X}]" for c in _NEVER}
_UNSAFE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff\u202a-\u202e]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CR = re.compile(r"\r\n|\r(?!\Z)")
_SHOWN = {ord(c): f"[U+{ord(c):04X}]" for c in _HIDDEN}


def _clean(text: str) -> str:
    """Line ends as `\\n`, control characters as pictures, direction overrides as [U+202E]. Maps each character alone
    (a final `\\r` stays until the next character is known), so that cleaning never depends on how text was cut."""
    if "\r" in text:
        text = _CR.sub("\n", text)
    if not text.isascii() or _UNSAFE.search(text):
        text = _SURROGATE.sub("\ufffd", text)
        if _UNSAFE.search(text):
            text = text.translate(_CLEAN)
    return text


_PUT_BACK = {ord(_LT): "<", ord(_GT): ">", ord(_AMP): "&"}
_REFERENCE = re.compile(r"&#(?:[xX]([0-9A-Fa-f]{1,8})|([0-9]{1,8}));")


def _no_reference(match: re.Match[str]) -> str:
    """A numeric reference to a character that `_clean` would not let through stays what was written."""
    code = int(match[1], 16) if match[1] else int(match[2])
    is_bad = code > 0x10FFFF or 0xD800 <= code < 0xE000 or _UNSAFE.match(chr(code))
    return _AMP + match[0][1:] if is_bad else match[0]


def visible(text: str) -> str:
    """`text` with invisible and direction-changing characters spelled out, for names, titles and link texts (X5)."""
    return _clean(text).replace("\r", "\u240d").translate(_SHOWN)


# -- Math delimiters -------------------------------------------------------------------------------------------------


class _Span(NamedTuple):
    start: int
    end: int
    body: str
    display: bool


_TOKEN = re.compile(
    r"""(?P<stop>\n[ \t>]*(?=\n)|\n[ \t>]*(?:[-*+]|\d{1,9}[.)])?[ \t]*(?:```|~~~))
      | (?P<newline>\n)
      | (?P<tick>`)
      | (?P<open>\\[\[(])
      | (?P<close>\\[\])])
      | (?P<escape>\\.)
      | (?P<dollars>\$+)""",
    re.VERBOSE,
)
_LEAD = re.compile(r"[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?\Z")
_AFTER_CLOSE = re.compile(r"[ \t]*[.,;:!?]?[ \t]*(?:\n|\Z)")


def _may_be_inline_math(before: str, body: str, after: str) -> bool:
    """Whether `$body$` between these two characters is math rather than two prices or two shell variables.

    Not math: `$0.27/$0.40`, `$5 and $10`, `US$5, A$6`, `$HOME/$USER`, `~$3–$4`. Math: `$x$`, `$5$`, `$2x = 4$`.
    """
    if not body or len(body) > 300 or body[0].isspace() or body[-1].isspace():
        return False
    if before.isalnum() or after.isdigit() or body[-1] in "/:,([=&-\u2013\u2014~":
        return False
    if body[0].isdigit() and not re.search(r"[\\^_={}<>+]", body):
        return re.fullmatch(r"\d+(?:\.\d+)?[A-Za-z]?", body) is not None
    return True


def _find_math(text: str) -> tuple[list[_Span], int | None]:
    """Every formula in `text`, and where a display formula starts that is still open at the end (None: none is).

    One pass, no backtracking. A display formula may run over lines if its delimiter is the first thing on its line; a
    blank line, a fence or a backtick ends the attempt. Inline formulas stay on their line.
    """
    if "$" not in text and "\\(" not in text and "\\[" not in text:
        return [], None
    spans: list[_Span] = []
    display: tuple[int, str, bool, int] | None = None  # start, delimiter, may run over lines, len(spans) before it
    inline: tuple[int, str] | None = None
    line = 0
    table = text.lstrip().startswith("|")
    for match in _TOKEN.finditer(text):
        kind, at, mark = match.lastgroup, match.start(), match.group()
        if kind in ("stop", "newline"):
            inline = None
            if display and (kind == "stop" or not display[2]):
                display = None
            line = match.end() if kind == "newline" else text.rfind("\n", at, match.end()) + 1
            table = text[line : line + 40].lstrip(" \t>").startswith("|")
        elif kind == "tick":
            display = inline = None
        elif kind == "open" or mark == "$$":
            closer = "$$" if mark == "$$" else "\\]" if mark == "\\[" else "\\)"
            if mark == "$$" and display and display[1] == "$$":
                body = text[display[0] + 2 : at]
                if body.strip() and not (table and "|" in body):
                    del spans[display[3] :]
                    spans.append(_Span(display[0], match.end(), body, display=True))
                    display = inline = None
                else:
                    display = (at, "$$", False, len(spans))
            elif mark == "\\(":
                inline = (at, "\\)")
            elif display is None or (mark == "\\[" and display[1] == closer):
                leads = _LEAD.match(text, line, at) is not None
                if mark == "$$" or leads:
                    display = (at, closer, leads, len(spans))
        elif kind == "close":
            if mark == "\\]" and display and display[1] == "\\]" and _AFTER_CLOSE.match(text, match.end()):
                body = text[display[0] + 2 : at]
                if body.strip():
                    del spans[display[3] :]
                    spans.append(_Span(display[0], match.end(), body, display=True))
                display = inline = None
            elif mark == "\\)" and inline and inline[1] == "\\)":
                body = text[inline[0] + 2 : at]
                if body.strip() and not (table and "|" in body):
                    spans.append(_Span(inline[0], match.end(), body, display=False))
                inline = None
        elif mark == "$":
            if inline and inline[1] == "$":
                body = text[inline[0] + 1 : at]
                before, after = text[inline[0] - 1 : inline[0]], text[at + 1 : at + 2]
                if _may_be_inline_math(before, body, after) and not (table and "|" in body):
                    spans.append(_Span(inline[0], match.end(), body, display=False))
                    inline = None
                    continue
            if inline is None or inline[1] == "$":
                inline = (at, "$")
    return spans, display[0] if display else None


# -- Blocks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Split:
    """`closed`: sources of the blocks that later text cannot change. `tail`: the rest. Together: the cleaned text."""

    closed: tuple[str, ...]
    tail: str


_FLAT = str.maketrans({"<": "x", "[": "x"})  # no HTML blocks, no link definitions: neither exists for us
_DEEP = re.compile(rf"^((?:[ \t]{{0,3}}>){{{MAX_DEPTH}}})((?:[ \t]{{0,3}}>)+)", re.MULTILINE)
_WORDS = re.compile(r"(?<![^\n \t>])[^\n \t>][^\n]*")
_FENCE = re.compile(rb" {0,3}(`{3,}|~{3,})")


def split(text: str) -> Split:
    """Cut `text` into top-level Markdown blocks.

    Pure and prefix-stable: for any prefix p of text, `split(p).closed` is a prefix of `split(text).closed`. Only whole
    lines decide: a block is closed when a later block has begun, a fence as soon as its closing line is complete.
    Restartable: `split(text).closed == split(p).closed + split(split(p).tail + rest).closed`.
    """
    text = _clean(text)
    whole = text.rfind("\n") + 1
    source = text[:whole]
    spans, unclosed = _find_math(source)
    masked, barred = _mask(source, spans, unclosed)
    data, closed, start = source.encode(), [], 0
    for cut in _cuts(masked, masked.encode()):
        if any(begin < cut < end for begin, end in barred):
            continue
        closed.append(data[start:cut].decode())
        start = cut
    return Split(tuple(closed), data[start:].decode() + text[whole:])


def _mask(source: str, spans: list[_Span], unclosed: int | None) -> tuple[str, list[tuple[int, int]]]:
    """`source` with formulas as rows of x, so that a `+ b` inside one starts no block, and the byte ranges of formulas
    over several lines, where no block may end. Keeps every line's indentation and the length in bytes.

    Nothing is decided behind a formula that is still open: it may turn out to be one, or not.
    """
    masked = _DEEP.sub(lambda m: m[1] + "x" * len(m[2]), source.translate(_FLAT))
    barred: list[tuple[int, int]] = []
    parts, at, at_byte = [], 0, 0

    def byte_of(position: int) -> int:
        return at_byte + (position - at if source.isascii() else len(source[at:position].encode()))

    for span in spans:
        begin = byte_of(span.start)
        parts.append(masked[at : span.start])
        at, at_byte = span.start, begin
        end = byte_of(span.end)
        if "\n" in span.body:
            barred.append((begin, end))
        parts.append(_WORDS.sub(lambda m: "x" * len(m[0].encode()), masked[span.start : span.end]))
        at, at_byte = span.end, end
    if unclosed is not None:
        barred.append((byte_of(unclosed), 1 << 62))
    parts.append(masked[at:])
    return "".join(parts), barred


def _cuts(masked: str, data: bytes) -> Iterator[int]:
    """Byte offsets after which a new top-level block begins, blank lines counted to the block that follows them."""
    depth, last = 0, None
    for event, where in pyromark.events_with_range(masked, options=_OPTIONS, merge_text=True):
        if type(event) is dict:
            if "Start" in event:
                depth += 1
                if depth > 1:
                    continue
            elif "End" in event:
                depth -= 1
                continue
            elif depth:
                continue
        elif depth:
            continue
        if last is not None:
            yield _line_end_before(data, where["start"])
        last = event, where
    if last is not None and type(last[0]) is dict:
        start = last[0].get("Start")
        if type(start) is dict and "CodeBlock" in start and start["CodeBlock"] != "Indented":
            end = data.find(b"\n", last[1]["end"] - 1) + 1
            begin = data.rfind(b"\n", 0, last[1]["start"]) + 1
            if _is_closed_fence(data[begin:end]):
                yield end


def _line_end_before(data: bytes, start: int) -> int:
    """The end of the last line with something on it that lies before the line of offset `start`."""
    at = data.rfind(b"\n", 0, start) + 1
    return len(data[:at].rstrip()) and data.find(b"\n", len(data[:at].rstrip())) + 1


def _is_closed_fence(block: bytes) -> bool:
    lines = block.rstrip().split(b"\n")
    opening = _FENCE.match(lines[0])
    closing = _FENCE.match(lines[-1])
    if len(lines) < 2 or not opening or not closing:
        return False
    return (
        opening[1][:1] == closing[1][:1]
        and len(closing[1]) >= len(opening[1])
        and not lines[-1][closing.end() :].strip()
    )


def render(text: str) -> SafeString:
    """The whole message as HTML: the concatenation of its rendered blocks."""
    parts = split(text)
    return mark_safe("".join([*(render_block(b) for b in parts.closed), render_block(parts.tail)]))  # noqa: S308


def render_block(source: str, *, open: bool = False) -> SafeString:
    """One block as sanitised HTML; "" for a blank one. `open`: it is still growing, so code is not coloured yet."""
    source = _clean(source)
    if not source.strip():
        return SafeString("")
    if len(source) > MAX_BLOCK:
        html = f'<pre class="plain">{escape(visible_code(source))}</pre>'
    else:
        html = _Writer(source, open=open).write()
    return mark_safe(_sanitised(html))  # noqa: S308


def _sanitised(html: str) -> str:
    """`html` by the allowlist, in time that grows with its length.

    The sanitiser takes four times as long for twice the ampersands in one run of text (measured: 2 s for 200,000).
    Where there are many, they go through it as a character that no text has (`_clean`) and come out as they were.
    """
    if html.count("&amp;") < MANY_AMPERSANDS:
        return _SANITISER.clean(html)
    return _SANITISER.clean(html.replace("&amp;", _AMP)).replace(_AMP, "&amp;")


def pause_after(tail: str) -> float:
    """Seconds to wait before an open `tail` is rendered again, so that one stream costs at most a few % of a core."""
    return 0.066 + len(tail) / 100_000


# -- Links -----------------------------------------------------------------------------------------------------------

_HTTP = re.compile(
    r"(https?)://(\[[0-9a-fA-F:.]+\]|[^\s/?#:@\\\[\]<>\"'`^{|}%]+)(:\d{1,5})?(?=[/?#]|\Z)", re.IGNORECASE
)
_MAILTO = re.compile(r"mailto:([A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+)(\?[^\s\\<>\"]*)?\Z", re.IGNORECASE)
_BARE = re.compile(rf"{_LT}?\bhttps?://[^\s{_LT}{_MATH}<>\"`\\]+>?", re.IGNORECASE)
_BAD_IN_URL = re.compile(r"[\x00-\x20\x7f-\x9f\\\"<>`{}|^\u2028\u2029" + _HIDDEN + "]")


class _Target(NamedTuple):
    href: str
    host: str


def _target(url: str) -> _Target | None:
    """Where a link really goes, spelled the way every browser reads it; None if it may not be followed.

    http and https without user info, and mailto. The host comes back as ASCII, so that look-alike letters show.
    """
    url = url.strip()
    if len(url) > 2_000:
        return None
    if mail := _MAILTO.match(url):
        return _Target(url, mail[1])
    match = _HTTP.match(url)
    if match is None:
        return None
    host = match[2].lower()
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except (UnicodeError, ValueError):
            return None
    if not re.fullmatch(r"\[[0-9a-f:.]+\]|[a-z0-9_.-]+", host):
        return None
    rest = url[match.end() :]
    if _BAD_IN_URL.search(rest):
        rest = _BAD_IN_URL.sub(lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), rest)
    try:
        urlsplit(f"{match[1]}://{host}{match[3] or ''}{rest}").port  # noqa: B018 - raises on a port out of range
    except ValueError:
        return None
    return _Target(f"{match[1].lower()}://{host}{match[3] or ''}{rest}", host + (match[3] or ""))


def _shows(text: str, target: _Target) -> bool:
    """Whether a link's own text already is the address it goes to."""
    match = re.match(r"(?:https?://|mailto:)?([^/?#\s]+)(?:[/?#]|\Z)", text.strip(), re.IGNORECASE)
    return match is not None and match[1].lower() == target.host.lower()


# -- From events to HTML ---------------------------------------------------------------------------------------------

_SIMPLE = {
    "Paragraph": "p",
    "Emphasis": "em",
    "Strong": "strong",
    "Strikethrough": "del",
    "Item": "li",
    "TableRow": "tr",
}
_CELL_ENDS = {"End": "TableCell"}
_BLOCKY = {"Paragraph", "Item", "BlockQuote", "List"}
_CLOSED_AT_END = re.compile(r"(?:^|\n)[ \t>]*(?:`{3,}|~{3,})[ \t]*\Z")
_PLACEHOLDER = re.compile(f"{_MATH}(\\d+){_END}")


def visible_code(text: str) -> str:
    """Code with every invisible or direction-changing character spelled out ("Trojan Source")."""
    return text if text.isascii() else text.translate(_SHOWN)


_PUT_BACK_AND_SHOWN = _SHOWN | _PUT_BACK


class _Writer:
    """Writes one block. Holds the output, the open tags and what a link or image in progress needs."""

    def __init__(self, source: str, *, open: bool) -> None:
        self.open = open
        self.out: list[str] = []
        self.stack: list[str] = []
        self.math, _ = _find_math(source)
        del self.math[MAX_MATH_PER_BLOCK:]
        self.originals: list[str] = []
        if self.math:
            parts, at = [], 0
            for number, span in enumerate(self.math):
                parts += [source[at : span.start], _MATH, str(number), _END]
                self.originals.append(source[span.start : span.end])
                at = span.end
            source = "".join([*parts, source[at:]])
        if ">" * 8 in source or "> > > >" in source:
            source = _DEEP.sub(lambda m: m[1] + m[2].replace(">", _GT), source)
        if "&#" in source:
            source = _REFERENCE.sub(_no_reference, source)
        if "<" in source:
            source = source.replace("<", _LT)
        if "]:" in source:
            source = _without_definitions(source)
        self.source = source
        self.link: tuple[_Target | None, int] | None = None
        self.image: tuple[str, list[str]] | None = None
        self.align: tuple[str, ...] = ()
        self.cell = 0
        self.in_head = False
        self.is_cut = False

    def write(self) -> str:
        events: list[Any] = list(pyromark.events(self.source, options=_OPTIONS))
        code: list[str] | None = None
        language = ""
        for index, event in enumerate(events):
            if self.is_cut:
                if event != _CELL_ENDS:
                    continue
                self.is_cut = False
                continue
            if type(event) is str:
                self._plain_event(event)
                continue
            ((kind, value),) = event.items()
            if kind == "Text":
                if code is not None:
                    code.append(value)
                elif self.image is not None:
                    self.image[1].append(self.restore(value))
                else:
                    self.text(value)
            elif kind == "Code":
                if self.image is not None:
                    self.image[1].append(self.restore(value))
                else:
                    self.out.append(f"<code>{escape(visible_code(self.restore(value)))}</code>")
            elif kind == "Start":
                if type(value) is dict and "CodeBlock" in value:
                    block = value["CodeBlock"]
                    language = self.restore(block["Fenced"]) if type(block) is dict else ""
                    code = []
                else:
                    self.start(value)
            elif kind == "End":
                if value == "CodeBlock":
                    ends_here = all(type(e) is dict and "End" in e for e in events[index + 1 :])
                    complete = not self.open and (not ends_here or self._ends_with_fence())
                    self.out.append(_code_block(self.restore("".join(code or [])), language, colour=complete))
                    code = None
                else:
                    self.end(value)
            elif kind == "TaskListMarker":
                self.out.append(f'<span class="task">{"☑" if value else "☐"}</span> ')
            else:  # nothing else is switched on; whatever it is, it is text
                self.text(str(value))
        return "".join(self.out)

    def _ends_with_fence(self) -> bool:
        return _CLOSED_AT_END.search(self.source.rstrip()) is not None

    def _plain_event(self, event: str) -> None:
        if self.image is not None:
            self.image[1].append(" ")
        elif event == "SoftBreak":
            self.out.append("\n")
        elif event == "HardBreak":
            self.out.append("<br>")
        elif event == "Rule":
            self.out.append("<hr>")

    # What was put aside comes back: as math in running text, as its source anywhere else.

    def restore(self, text: str) -> str:
        if _MATH in text:
            text = _PLACEHOLDER.sub(lambda m: self.originals[int(m[1])], text)
        return text if text.isascii() else text.translate(_PUT_BACK)

    def text(self, text: str) -> None:
        if _MATH in text:
            at = 0
            for match in _PLACEHOLDER.finditer(text):
                self._words(text[at : match.start()])
                span = self.math[int(match[1])]
                body = span.body
                if span.display and ">" in self.source.lstrip()[:1]:
                    body = re.sub(r"\n[ \t]*>[ \t]?", "\n", body)
                formula = _formula(body, span.display)
                if not formula:
                    formula = self._unread(self.originals[int(match[1])])
                elif not span.display and len(body) > 60:  # a formula never breaks; a long one gets its own scroll bar
                    formula = f'<span class="math-scroll">{formula}</span>'
                self.out.append(formula)
                at = match.end()
            text = text[at:]
        self._words(text)

    def _unread(self, source: str) -> str:
        return f'<code class="math-source">{escape(visible_code(source))}</code>'

    def _words(self, text: str) -> None:
        if self.link is None and "://" in text:
            at = 0
            for match in _BARE.finditer(text):
                found = match[0]
                begin, end = match.start(), match.end()
                if found[0] == _LT and found[-1] == ">":
                    url, shown_end = found[1:-1], end
                else:
                    url = _trim(found.lstrip(_LT).rstrip(">"))
                    begin = match.start() + (found[0] == _LT)
                    shown_end = begin + len(url)
                target = _target(url)
                if target is None:
                    continue
                self.out.append(self._escaped(text[at:begin]))
                self.out.append(f'<a href="{escape(target.href)}">{escape(visible(url))}</a>')
                if not _shows(url, target):
                    self.out.append(f'<span class="link-host">{escape(target.host)}</span>')
                at = shown_end
            text = text[at:]
        self.out.append(self._escaped(text))

    def _escaped(self, text: str) -> str:
        if not text.isascii():
            text = text.translate(_PUT_BACK if self.link is None else _PUT_BACK_AND_SHOWN)
        return escape(text, quote=False)

    def start(self, tag: Any) -> None:
        name, value = _name_and_value(tag)
        if self.image is not None:
            if name == "Image":  # an image in an image's text: its text joins the outer one
                self.stack.append("nested image")
            return
        out = self.out
        if name == "Link":
            target = None if self.link is not None else _target(self.restore(value["dest_url"]))
            self.link = (target, len(out))
            if target:
                out.append(f'<a href="{escape(target.href)}">')
        elif name == "Image":
            self.image = (self.restore(value["dest_url"]), [])
        elif name == "Heading":
            out.append(f"<h{_level(value['level'])}>")
        elif name == "Table":
            self.align = value
            out.append('<div class="table-scroll" tabindex="0"><table>')
        elif name == "TableHead":
            self.in_head, self.cell = True, 0
            out.append("<thead><tr>")
        elif name == "TableCell":
            if self.cell >= MAX_COLUMNS:
                self.is_cut = True
                return
            side = self.align[self.cell] if self.cell < len(self.align) else "None"
            self.cell += 1
            cls = {"Right": ' class="right"', "Center": ' class="center"'}.get(side, "")
            out.append(f"<{'th' if self.in_head else 'td'}{cls}>")
        else:
            if name == "TableRow":
                self.cell = 0
            elif name in _BLOCKY:
                self.stack.append(name)
                if len(self.stack) > MAX_DEPTH:
                    if name in ("Item", "Paragraph"):
                        out.append("<br>")
                    return
            if name == "List":
                out.append("<ul>" if value is None else f'<ol start="{int(value)}">' if value != 1 else "<ol>")
            elif name == "BlockQuote":
                out.append("<blockquote>")
            elif name in _SIMPLE:
                out.append(f"<{_SIMPLE[name]}>")

    def end(self, tag: Any) -> None:
        name, value = _name_and_value(tag)
        out = self.out
        if self.image is not None:
            if name != "Image":
                return
            if self.stack and self.stack[-1] == "nested image":
                self.stack.pop()
                return
            self._image()
        elif name == "Link":
            target, begin = self.link or (None, 0)
            if target:
                out.append("</a>")
                if not _shows(_text_of(out[begin + 1 : -1]), target):
                    out.append(f'<span class="link-host">{escape(target.host)}</span>')
            self.link = None
        elif name == "Heading":
            out.append(f"</h{_level(value)}>")
        elif name == "Table":
            out.append("</tbody></table></div>")
        elif name == "TableHead":
            self.in_head = False
            out.append("</tr></thead><tbody>")
        elif name == "TableCell":
            out.append("</th>" if self.in_head else "</td>")
        else:
            if name in _BLOCKY:
                self.stack.pop()
                if len(self.stack) >= MAX_DEPTH:
                    return
            if name == "List":
                out.append("</ol>" if value else "</ul>")
            elif name == "BlockQuote":
                out.append("</blockquote>")
            elif name in _SIMPLE:
                out.append(f"</{_SIMPLE[name]}>")

    def _image(self) -> None:
        assert self.image is not None
        url, texts = self.image
        self.image = None
        label = escape(visible("".join(texts)).strip() or "no description")
        target = _target(url)
        if target is None:
            self.out.append(f'<span class="image">Image, not loaded: {label}</span>')
        elif self.link is not None:
            self.out.append(f'<span class="image">Image, not loaded: {label} ({escape(target.host)})</span>')
        else:
            self.out.append(
                f'<a class="image" href="{escape(target.href)}">Image, not loaded: {label}</a>'
                f'<span class="link-host">{escape(target.host)}</span>'
            )


def _name_and_value(tag: Any) -> tuple[str, Any]:
    """An event's tag is a word, or a mapping of one word to what belongs to it."""
    return (tag, None) if type(tag) is str else next(iter(tag.items()))


def _level(name: str) -> int:
    """Heading levels start at 3: the page has its own h1 and h2."""
    return min(int(name[1]) + 2, 6)


def _trim(url: str) -> str:
    """A bare address without the punctuation of the sentence around it."""
    while url and (url[-1] in ".,;:!?'\"*_~]}" or (url[-1] == ")" and url.count(")") > url.count("("))):
        url = url[:-1]
    return url


def _text_of(parts: list[str]) -> str:
    return re.sub(r"<[^>]*>", "", "".join(parts))


def _without_definitions(source: str) -> str:
    """`[1]: https://…` escaped, so that the line stays visible instead of being swallowed."""
    definitions = pyromark.reference_definitions(source, options=_OPTIONS)
    if not definitions:
        return source
    data = source.encode()
    for start in sorted((d["span"]["start"] for d in definitions.values()), reverse=True):
        data = data[:start] + b"\\" + data[start:]
    return data.decode()


# -- Code ------------------------------------------------------------------------------------------------------------

# Languages that are coloured. A list, not "whatever Pygments knows": some of its lexers are slow on hostile input.
_LANGUAGE_NAMES = (
    "bash c css diff docker elixir erlang go graphql haskell html http ini java javascript json jsx julia kotlin lua "
    "make markdown nginx ocaml perl php powershell python r ruby rust scala scss sql swift toml tsx typescript xml "
    "yaml zig"
)
_LANGUAGES = frozenset(_LANGUAGE_NAMES.split())
_ALIASES = {
    "sh": "bash", "shell": "bash", "zsh": "bash", "console": "bash", "cpp": "c++", "c++": "c++", "cs": "csharp",
    "c#": "csharp", "csharp": "csharp", "dockerfile": "docker", "golang": "go", "js": "javascript",
    "mjs": "javascript", "ts": "typescript", "jsonc": "json", "json5": "json", "kt": "kotlin", "makefile": "make",
    "md": "markdown", "ps1": "powershell", "py": "python", "python3": "python", "rb": "ruby", "rs": "rust",
    "yml": "yaml", "htm": "html", "svg": "xml", "django": "html", "jinja": "html", "postgresql": "sql", "patch": "diff",
}  # fmt: skip
_NOT_A_LANGUAGE = re.compile(r"[^\w+#.-]")

# Few colours: what Pygments tells apart in eighty ways is shown in nine.
_CLASSES = {
    "Token.Comment": "c",
    "Token.Comment.Preproc": "k",
    "Token.Keyword": "k",
    "Token.Operator.Word": "k",
    "Token.Literal.String": "s",
    "Token.Literal.Number": "m",
    "Token.Literal.Date": "m",
    "Token.Keyword.Constant": "m",
    "Token.Name.Function": "nf",
    "Token.Name.Class": "nf",
    "Token.Name.Decorator": "nf",
    "Token.Name.Tag": "nt",
    "Token.Name.Attribute": "na",
    "Token.Name.Builtin": "nb",
    "Token.Generic.Inserted": "gi",
    "Token.Generic.Deleted": "gd",
    "Token.Generic.Heading": "gh",
    "Token.Generic.Subheading": "gh",
}


@lru_cache(maxsize=512)
def _class_of(token_type: Any) -> str:
    while token_type is not None:
        if found := _CLASSES.get(str(token_type)):
            return found
        token_type = token_type.parent
    return ""


@lru_cache(maxsize=64)
def _lexer(language: str) -> Any:
    name = _ALIASES.get(language, language)
    if name not in _LANGUAGES and name not in ("c++", "csharp"):
        return None
    from pygments.lexers import get_lexer_by_name  # imported late: 5 MB that many processes never need
    from pygments.util import ClassNotFound

    try:
        return get_lexer_by_name(name, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


def _code_block(code: str, info: str, *, colour: bool) -> str:
    """A labelled code block. `info` is the fence's own first line; its first word names the language."""
    language = _NOT_A_LANGUAGE.sub("", (info.split() or [""])[0])[:24]
    code = visible_code(code.removesuffix("\n"))
    body = ""
    if colour and language and len(code) <= MAX_HIGHLIGHT and (lexer := _lexer(language.lower())):
        body = _coloured(code, lexer)
    return (
        f'<figure class="code"><figcaption><span>{escape(language or "text")}</span><copy-button></copy-button>'
        f'</figcaption><pre tabindex="0"><code>{body or escape(code, quote=False)}</code></pre></figure>'
    )


def _coloured(code: str, lexer: Any) -> str:
    """`code` with its words in spans. "" if the lexer does not give back the very characters it was given."""
    runs: list[tuple[str, list[str]]] = []
    read = 0
    for count, (token_type, value) in enumerate(lexer.get_tokens(code + "\n")):  # many comments want a line end
        cls = _class_of(token_type)
        if count == MAX_TOKENS:
            runs.append(("", [code[read:] + "\n"]))
            break
        read += len(value)
        if runs and (runs[-1][0] == cls or value.isspace()):
            runs[-1][1].append(value)
        else:
            runs.append((cls, [value]))
    joined = [(cls, "".join(values)) for cls, values in runs]
    if "".join(text for _, text in joined) != code + "\n":
        return ""
    joined[-1] = joined[-1][0], joined[-1][1].removesuffix("\n")
    parts = []
    for cls, text in joined:
        text = escape(text, quote=False)
        parts.append(f'<span class="{cls}">{text}</span>' if cls else text)
    return "".join(parts)


# -- Math ------------------------------------------------------------------------------------------------------------

_MATH_TAG_NAMES = (
    "math mrow mi mn mo ms mtext mspace msqrt mroot mfrac msub msup msubsup munder mover munderover mmultiscripts "
    "mprescripts mtable mtr mtd mstyle mpadded mphantom menclose"
)
_MATH_TAGS = frozenset(_MATH_TAG_NAMES.split())
_LENGTH = re.compile(r"-?\d{0,2}(?:\.\d{1,4})?(?:em|ex|px|pt|mu)?")
_WORD = re.compile(r"[a-z]{1,24}(?:[ -][a-z]{1,24}){0,11}")
_MATH_ATTRIBUTES = {
    "display": _WORD, "displaystyle": _WORD, "mathvariant": _WORD, "stretchy": _WORD, "fence": _WORD, "form": _WORD,
    "separator": _WORD, "accent": _WORD, "accentunder": _WORD, "movablelimits": _WORD, "symmetric": _WORD,
    "largeop": _WORD, "columnalign": _WORD, "rowalign": _WORD, "columnlines": _WORD, "rowlines": _WORD,
    "notation": _WORD, "linebreak": _WORD, "scriptlevel": re.compile(r"[+-]?[0-3]"), "minsize": _LENGTH,
    "maxsize": _LENGTH, "lspace": _LENGTH, "rspace": _LENGTH, "width": _LENGTH, "height": _LENGTH, "depth": _LENGTH,
    "linethickness": _LENGTH, "rowspacing": _LENGTH, "columnspacing": _LENGTH,
}  # fmt: skip


@lru_cache(maxsize=512)
def _formula(latex: str, display: bool) -> str:
    """LaTeX as core MathML, or "" when it cannot be read: the caller then shows the source.

    The converter recurses, raises anything on unfinished input and lets markup through `\\text` and `\\href`, so its
    tree is capped before, copied tag by tag after, and never trusted as text.
    """
    if _DEFINES.search(latex):
        return ""
    latex = _DROPPED.sub("", latex)
    latex = _ENVIRONMENT.sub(r"\\\1{align}", latex).replace("\\arg\\", "\\operatorname{arg}\\").strip()
    if not latex or len(latex) > MAX_MATH or _nesting(latex) > MAX_MATH_DEPTH:
        return ""
    from latex2mathml.converter import convert_to_element

    try:
        tree = convert_to_element(latex, display="block" if display else "inline")
        return _mathml(tree, 0)
    except Exception:
        return ""


_DEFINES = re.compile(
    r"\\(?:(?:re)?new(?:command|environment)|providecommand|[gex]?def|let(?![a-z])|DeclareMath|global|csname|in(?:put|clude))"
)
_DROPPED = re.compile(r"\\(?:nonumber|notag|hline)(?![A-Za-z])|\\label\{[^{}]*\}")
_ENVIRONMENT = re.compile(r"\\(begin|end)\{(?:aligned|alignedat|eqnarray\*?)\}")
_NESTS = re.compile(r"\\(?:[{}\\]|left\b|right\b|begin\b|end\b|sqrt\b|frac\b)|[{}^_]")


def _nesting(latex: str) -> int:
    """How deep the converter would recurse at most, counted without trusting that anything is closed."""
    depth = deepest = scripts = 0
    for match in _NESTS.finditer(latex):
        token = match[0]
        if token in ("{", "\\left", "\\begin"):
            depth += 1
        elif token in ("}", "\\right", "\\end"):
            depth = max(depth - 1, 0)
        elif token in ("^", "_", "\\sqrt", "\\frac"):
            scripts = scripts + 1 if match.start() and latex[match.start() - 1] in "^_" else 0
        deepest = max(deepest, depth + scripts)
    return deepest


def _mathml(element: Element, depth: int) -> str:
    tag = element.tag
    if element.text and element.text[0] == "\\" and len(element.text) > 1 and tag == "mi":
        raise ValueError("unknown command")
    inner = escape(_entity_text(element.text), quote=False) if element.text else ""
    if depth < 80:
        for child in element:
            inner += _mathml(child, depth + 1)
            if child.tail:
                inner += escape(_entity_text(child.tail), quote=False)
    if tag not in _MATH_TAGS:
        return f"<mrow>{inner}</mrow>" if len(element) else f"<mtext>{inner}</mtext>"
    attributes = "".join(
        f' {name}="{value}"'
        for name, value in element.attrib.items()
        if (rule := _MATH_ATTRIBUTES.get(name)) and value and rule.fullmatch(value)
    )
    return f"<{tag}{attributes}>{inner}</{tag}>"


_CODE_POINT = re.compile(r"&#x([0-9A-Fa-f]{1,6});")


def _entity_text(text: str) -> str:
    """The converter writes some characters as `&#x0002B;` inside its tree; a `<` that comes out is escaped after."""
    return _CODE_POINT.sub(lambda m: _clean(chr(min(int(m[1], 16), 0x10FFFF))), text).translate(_SHOWN_IN_MATH)


_SHOWN_IN_MATH = {ord(c): f"[U+{ord(c):04X}]" for c in _NEVER}

# -- The sanitiser, always last --------------------------------------------------------------------------------------

_TAGS = {
    "p", "em", "strong", "del", "code", "pre", "br", "hr", "a", "span", "ul", "ol", "li", "blockquote", "h3", "h4",
    "h5", "h6", "figure", "figcaption", "copy-button", "div", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
ALLOWED_CLASSES: dict[str, set[str]] = {
    "a": {"image"},
    "code": {"math-source"},
    "div": {"table-scroll"},
    "figure": {"code"},
    "pre": {"plain"},
    "span": {"image", "link-host", "math-scroll", "task", *_CLASSES.values()},
    "td": {"right", "center"},
    "th": {"right", "center"},
}
ALLOWED_ATTRIBUTES: dict[str, set[str]] = {"a": {"href"}, "ol": {"start"}} | {
    tag: set(_MATH_ATTRIBUTES) for tag in _MATH_TAGS
}
ALLOWED_TAGS: frozenset[str] = frozenset(_TAGS | _MATH_TAGS)

_SANITISER = nh3.Cleaner(
    tags=set(ALLOWED_TAGS),
    clean_content_tags=set(),
    attributes=ALLOWED_ATTRIBUTES,
    tag_attribute_values={"pre": {"tabindex": {"0"}}, "div": {"tabindex": {"0"}}},
    allowed_classes=ALLOWED_CLASSES,
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
    link_rel="noopener noreferrer nofollow",
    strip_comments=True,
)
