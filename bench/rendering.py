"""Microseconds of rendering: `python bench/rendering.py` (CPU time, median of 30)."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chat.rendering import render, render_block, split

PROSE = (
    "A paragraph with **bold**, *italic*, `code`, and a [link](https://example.org/x) in it. It says enough to fill "
    "two lines.\n\n- first point\n- second point, with $x^2$\n- third\n\n"
)
CODE = (
    "```python\ndef total(items):\n    # add up\n    return sum(item.price * 3 for item in items if item.name)\n\n\n"
    "class A:\n    name: str = 'x'\n```\n\n"
)


def microseconds(function, *arguments) -> float:
    times = []
    for _ in range(30):
        begun = time.process_time_ns()
        function(*arguments)
        times.append((time.process_time_ns() - begun) / 1000)
    return median(times)


def main() -> None:
    print("us                        split   render")
    for size in (2_000, 10_000, 100_000):
        for name, text in (("prose", (PROSE * 600)[:size]), ("with code", ((PROSE + CODE) * 400)[:size])):
            print(f"{size:>7} B {name:<12} {microseconds(split, text):>8.0f} {microseconds(render, text):>8.0f}")
    for name, tail in (("open paragraph", PROSE[:120]), ("open code", CODE[:150])):
        one = microseconds(lambda tail=tail: render_block(tail, open=True))
        print(f"{name:<22} {microseconds(split, tail):>8.0f} {one:>8.0f}")
    print(f"{'closed code':<22} {microseconds(split, CODE):>8.0f} {microseconds(render_block, CODE):>8.0f}")


if __name__ == "__main__":
    main()
