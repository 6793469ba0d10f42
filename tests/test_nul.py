"""PostgreSQL takes no NUL in a text, SQLite does: no field of a page may carry one to the database (P1, I21)."""

from __future__ import annotations

import pytest
from django.db import connection


@pytest.mark.parametrize(
    ("method", "path", "data"),
    [
        ("get", "/usage/tokens/", {"model": "a\0b"}),
        ("post", "/accounts/sealing/", {"purpose": "a\0b"}),
        ("get", "/models/", {"q": "a\0b", "account": "\0"}),
        ("get", "/models/select/", {"q": "a\0b"}),
        ("get", "/usage/", {"period": "\0", "before": "\0"}),
        ("get", "/chat/picker/", {"model": "1\0", "account": "\0"}),
        ("post", "/send/", {"text": "a\0b", "model": "1\0", "client_key": "\0"}),
        ("post", "/usage/tokens/new/", {"name": "a\0b", "days": "0"}),
    ],
)
def test_p1_a_nul_in_a_field_reaches_no_query(alice_client, method, path, data):
    def watch(execute, sql, params, many, context):
        assert "\0" not in repr(params) and "\\x00" not in repr(params), sql
        return execute(sql, params, many, context)

    with connection.execute_wrapper(watch):
        answer = getattr(alice_client, method)(path, data)
    assert answer.status_code < 500
    assert answer.status_code != 404


@pytest.mark.parametrize("path", ["/accounts/pulse/", "/chat/sidebar/", "/models/", "/accounts/"])
@pytest.mark.parametrize("behind", ["http://[", "\0", "//", "http://elsewhere.example/accounts/"])
def test_i21_nonsense_about_the_page_behind_a_request_is_no_error(alice_client, path, behind):
    """htmx says it in a header, so anything may stand in it."""
    answer = alice_client.get(path, headers={"hx-request": "true", "hx-current-url": behind})
    assert answer.status_code == 200
