"""What the well-behaved models say. Pure and deterministic: the same request gets the same answer."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from providers.sandbox.shelf import Model


def tokens(text: str) -> int:
    """A token is four characters here, rounded up: easy to check by hand."""
    return -(-len(text) // 4)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model has to say, before it is cut into pieces."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[tuple[str, str, str], ...] = field(default=())
    """(id, name, arguments as JSON text)"""

    @property
    def finish_reason(self) -> str:
        return "tool_calls" if self.tool_calls else "stop"


def text_of(message: Any) -> str:
    """The text of one message, whose content may be a string or a list of parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return ""


def last_message(body: dict[str, Any], role: str = "user") -> str:
    for message in reversed(body["messages"]):
        if isinstance(message, dict) and message.get("role") == role:
            return text_of(message)
    return ""


def usage(model: Model | None, body: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """The usage object: everything before the last message counts as cached, reasoning is part of the completion."""
    sizes = [tokens(text_of(message)) for message in body["messages"]]
    prompt, cached = max(sum(sizes), 1), sum(sizes[:-1])
    reasoning = tokens(answer.reasoning)
    completion = tokens(answer.text) + reasoning + sum(tokens(a) for _, _, a in answer.tool_calls)
    counts: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": min(cached, prompt)},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    if model is not None and model.bills:
        cost = model.cost(prompt, completion, min(cached, prompt))
        if cost is not None:
            counts["cost"] = float(round(cost * 11 / 10, 12))
    return counts


def pieces(text: str, words: int = 2) -> list[str]:
    """`text` in pieces of a few words, the way models stream. Joined they are the text again."""
    found = re.findall(r"\s*\S+|\s+\Z", text)
    return ["".join(found[at : at + words]) for at in range(0, len(found), words)]


def _quoted(text: str, limit: int = 280) -> str:
    """The user's words as a Markdown quote, shortened."""
    words = " ".join(text.split())
    if len(words) > limit:
        words = words[:limit].rsplit(" ", 1)[0] + " …"
    return "> " + (words or "(an empty message)")


def _topic(text: str) -> str:
    found = re.findall(r"[^\W\d_]{4,}", text)
    return max(found, key=len).lower() if found else "your message"


def _markdown(body: dict[str, Any]) -> str:
    said = last_message(body)
    turns = sum(1 for m in body["messages"] if isinstance(m, dict) and m.get("role") == "user")
    return f"""You wrote:

{_quoted(said)}

This is turn **{turns}** of our conversation, and I am a model for trying things out: I run on this machine, need no \
key, and know nothing. What I can do is show how an answer looks.

## About *{_topic(said)}*

1. **It arrives in pieces.** Every few words are one event; you can stop me, reload the page, or open it elsewhere.
2. **It is counted.** Your message has {len(said)} characters, which I call {tokens(said)} tokens, and the receipt
   below shows what that costs at my listed price.
3. **It is kept.** Ask again later and the conversation is still here.

Things worth trying next:

- the *Thinker*, which reasons before it answers,
- `Coder`, `Tables` and `Mathematician`, for code, numbers and formulas,
- your own provider, under **Accounts**.

Then delete this conversation; nothing is lost with me.
"""


def _reasoning(body: dict[str, Any]) -> tuple[str, str]:
    said = last_message(body)
    thought = (
        f"The user wrote {len(said)} characters. The longest word is “{_topic(said)}”, so that is the topic, "
        "probably.\n\n"
        "First, what is asked? Something I cannot know. Second, what is useful? To show that thinking and answering "
        "are kept apart: this text folds away, and its tokens are counted as reasoning.\n\n"
        "So the answer should be short."
    )
    text = f"""Having thought about *{_topic(said)}*, my answer is **it depends**, for two reasons:

1. You asked: {" ".join(said.split())[:120] or "nothing"}
2. I am a model for trying things out, so any answer beyond that would be made up.

What I thought is folded away above.
"""
    return thought, text


def _code(body: dict[str, Any]) -> str:
    word = re.sub(r"\W", "_", _topic(last_message(body)))
    # S608 sees SQL; it is text for a person.
    return f'''Here is *{word}* in three languages.

```python
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One thing about {word}."""

    name: str
    price: float = 0.42  # USD

    def total(self, count: int) -> float:
        return round(self.price * count, 2)


print(Item("{word}").total(3))
```

The same as a shell command:

```bash
curl -s http://127.0.0.1:8000/v1/models | jq '.data[].id'  # lists the models
```

And as a query, with a `WHERE` that tells `<` from `>`:

```sql
SELECT name, SUM(price) AS total
FROM items
WHERE name = '{word}' AND price < 100
GROUP BY name;
```
'''  # noqa: S608


def _table(body: dict[str, Any]) -> str:
    said = last_message(body)
    words = re.findall(r"[^\W_]+", said)[:5] or ["nothing"]
    lines = "\n".join(f"| {word} | {len(word)} | {said.count(word)} | ${len(word) * 0.0015:.4f} |" for word in words)
    return f"""The first words of your message:

| Word | Letters | Times | At $0.0015 a letter |
|:-----|--------:|:-----:|--------------------:|
{lines}

Together {len(said)} characters.
"""


def _math(body: dict[str, Any]) -> str:
    size = len(last_message(body))
    return rf"""Your message has $n = {size}$ characters. Their pairs are counted by

$$
\binom{{n}}{{2}} = \frac{{n (n - 1)}}{{2}}
  = {size * (size - 1) // 2}
$$

which costs \$0.27 or \$0.40, depending on the plan: \(p \in \{{0.27, 0.40\}}\) dollars. And, because every answer about
mathematics needs one:

\[
\int_{{-\infty}}^{{\infty}} e^{{-x^2}} \, dx = \sqrt{{\pi}}
\]

as well as $e^{{i\pi}} + 1 = 0$.
"""


def _tools(body: dict[str, Any]) -> Answer:
    if body["messages"] and isinstance(body["messages"][-1], dict) and body["messages"][-1].get("role") == "tool":
        return Answer(f"The tool said:\n\n{_quoted(text_of(body['messages'][-1]))}\n")
    offered = body.get("tools")
    for tool in offered if isinstance(offered, list) else []:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            schema = function.get("parameters")
            names = schema.get("properties", {}) if isinstance(schema, dict) else {}
            said = last_message(body)
            arguments = json.dumps(dict.fromkeys(names, said), ensure_ascii=False)
            return Answer(tool_calls=(("call_1", function["name"], arguments),))
    return Answer("You offered no tool, so there is nothing to call. Send `tools` with your request.\n")


def _long(body: dict[str, Any]) -> str:
    topic = _topic(last_message(body))
    sections = []
    for number in range(1, 196):
        sections.append(
            f"## {number}. More about {topic}\n\n"
            f"Paragraph {number} of a very long answer. It has **bold**, *italic*, `code` and a [link]"
            f"(https://example.org/{number}), and says the same as the others in slightly different words: there is "
            f"nothing to know here, only something to scroll through, at a pace of about {number * 7} words so far. "
            "What matters is that the page stays quick, the text stays whole, and Stop still works.\n\n"
            f"- first point of section {number}\n- second point, with a number: {number * number}\n\n"
            f"```python\nfor step in range({number}):\n    print('{topic}', step)\n```\n\n"
        )
    return "".join(sections)


# The palette that `able` knows, by which it names what it sees.
_COLOURS = {
    "red": (220, 20, 20),
    "green": (20, 160, 40),
    "blue": (20, 40, 220),
    "yellow": (245, 225, 20),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}


def pictures(body: dict[str, Any]) -> list[str]:
    """The addresses of all pictures in the messages."""
    parts = [part for message in body["messages"] for part in message.get("content") or [] if isinstance(part, dict)]
    urls = [part.get("image_url") for part in parts if part.get("type") == "image_url"]
    return [url["url"] for url in urls if isinstance(url, dict) and isinstance(url.get("url"), str)]


def colours(url: str) -> tuple[str, str] | None:
    """The names of a PNG's first and last pixel, or None for what is no plain picture of 8 bits a colour."""
    try:
        data = base64.b64decode(url.partition(";base64,")[2], validate=True)
        rows = b"".join(data[at + 8 : at + 8 + size] for at, size in _chunks(data) if data[at + 4 : at + 8] == b"IDAT")
        pixels = zlib.decompressobj().decompress(rows, 4_000_000)
    except (ValueError, struct.error, zlib.error):
        return None
    if len(pixels) < 4:
        return None

    def name(pixel: bytes) -> str:
        return min(_COLOURS, key=lambda one: sum((a - b) ** 2 for a, b in zip(pixel, _COLOURS[one], strict=False)))

    return name(pixels[1:4]), name(pixels[-3:])


def _chunks(data: bytes) -> Iterator[tuple[int, int]]:
    """(where, how long) of each chunk of a PNG."""
    at = 8
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        yield at, size
        at += size + 12


def _able(body: dict[str, Any]) -> Answer:
    if body.get("tools"):
        return _tools(body)
    wanted = body.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema"):
        return Answer(json.dumps({"capital": "Paris", "said": last_message(body)[:80]}))
    if shown := pictures(body):
        seen = colours(shown[-1])
        return Answer(f"{seen[0].title()} and {seen[1]}." if seen else "I cannot see a picture that I can read.")
    return Answer("Hello.")


def answer(model_id: str, body: dict[str, Any]) -> Answer:
    """What the model `model_id` says to `body` (whose `messages` is a list)."""
    match model_id:
        case "reasoning":
            thought, text = _reasoning(body)
            return Answer(text, thought)
        case "tools":
            return _tools(body)
        case "able":
            return _able(body)
        case "echo":
            return Answer(last_message(body))
    writers = {"code": _code, "table": _table, "math": _math, "long": _long}
    return Answer(writers.get(model_id, _markdown)(body))
