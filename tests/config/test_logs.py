"""No credential reaches the log, wherever in a record it hides (K4's second line)."""

from __future__ import annotations

import logging
import sys

import pytest

from config import logs
from config.logs import Formatter, redact

KEY = "sk-or-v1-0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("said", "written"),
    [
        (f"key {KEY} refused", "key sk-or-v1-•••• refused"),
        ("sk-abcdefghijklmnop", "sk-••••"),
        ("sk-ant-api03-AbCdEf_123456-x", "sk-ant-api03-••••"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ••••"),
        ("{'x-api-key': 'abcdef123456'}", "{'x-api-key': '••••'}"),
        ("?api_key=abcdef123456&x=1", "?api_key=••••&x=1"),
        ("GET /setup/z8-qgXCMO54WHAIrcC0ECd4p14vI5ZfqHUhlP-panqM/ failed", "GET /setup/••••/ failed"),
        ("task sk-1 and the bear of news", "task sk-1 and the bear of news"),
        ("asked for 12 models", "asked for 12 models"),
    ],
)
def test_what_looks_like_a_credential_is_blotted_out_k4(said, written):
    assert redact(said) == written


def test_arguments_and_tracebacks_are_covered_k4():
    formatter = Formatter("{levelname} [{request_id}] {message}", style="{")
    token = logs.request_id.set("r1")
    try:
        raise ValueError(f"bad header Bearer {KEY}")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed with %s", (KEY,), sys.exc_info())
    line = formatter.format(record)
    logs.request_id.reset(token)
    assert KEY not in line
    assert line.startswith("ERROR [r1] failed with sk-or-v1-••••")
    assert "ValueError: bad header Bearer ••••" in line


def test_every_handler_of_ours_uses_it():
    from django.conf import settings

    assert settings.LOGGING["formatters"]["line"]["()"] == "config.logs.Formatter"
    assert {handler["formatter"] for handler in settings.LOGGING["handlers"].values()} == {"line"}
    assert settings.LOGGING["root"]["handlers"] == ["out"]
