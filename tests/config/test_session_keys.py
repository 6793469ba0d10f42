"""P1, I21: a session cookie that cannot be a key is nobody's, and no error."""

from __future__ import annotations

import pytest
from django.test import Client

ODD = [r'"\000aaaaaaaaaa"', '"aaaaaaaa\\"b"', "ä" * 12, "a" * 5_000, "../../etc/passwd", "'; DROP TABLE x; --"]


@pytest.mark.parametrize("cookie", ODD)
def test_an_odd_session_cookie_leads_to_the_sign_in_page(db, cookie):
    answer = Client(headers={"cookie": f"session={cookie}"}).get("/")
    assert answer.status_code == 302 and "/sign-in/" in answer["location"]


@pytest.mark.parametrize("cookie", ODD)
async def test_an_odd_session_cookie_reaches_no_hot_route_and_no_query(cookie):
    from config.sessions import Sessions

    assert await Sessions().user_id(f"session={cookie}") is None


def test_a_real_session_still_works(alice_client):
    assert alice_client.get("/").status_code == 200
