"""The walls around hot routes: host, method, body, caller, origin of the call, headers, and what happens on leaving."""

from __future__ import annotations

import asyncio
import threading
import uuid

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import connection

from config import hot, sessions
from config.dispatcher import Dispatcher
from tests.asgi import Connection, ask

SEEN: list[hot.HotRequest] = []
EVENTS: list[str] = []


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr("config.dispatcher.ROUND_SECONDS", 0.02)
    SEEN.clear()
    EVENTS.clear()


async def echo(request: hot.HotRequest, pk: uuid.UUID) -> hot.HotResponse:
    SEEN.append(request)
    return hot.HotResponse(
        200, {"content-type": "text/plain"}, f"{request.user_id} {pk} ".encode() + await request.body()
    )


async def ticks(request: hot.HotRequest) -> hot.HotResponse:
    async def body():
        try:
            for number in range(10_000):
                yield f"tick {number}\n".encode()
                await asyncio.sleep(0.01)
        finally:
            EVENTS.append("closed")

    return hot.HotResponse(200, {"content-type": "text/event-stream"}, body())


async def waits(request: hot.HotRequest) -> hot.HotResponse:
    try:
        await asyncio.sleep(30)  # for an upstream that says nothing
    finally:
        EVENTS.append(f"ended: {request.ended}")
    return hot.HotResponse(200, {}, b"an answer")


async def breaks(request: hot.HotRequest) -> hot.HotResponse:
    raise RuntimeError("a secret detail")


async def breaks_midway(request: hot.HotRequest) -> hot.HotResponse:
    async def body():
        yield b"first"
        raise RuntimeError("a secret detail")

    return hot.HotResponse(200, {}, body())


HERE = "tests.config.test_hot_routes"
ROUTES = (
    hot.HotRoute("echo", frozenset({"GET", "POST"}), "/hot/<uuid:pk>/echo", f"{HERE}:echo", "session", body_limit=10),
    hot.HotRoute("ticks", frozenset({"GET"}), "/hot/ticks", f"{HERE}:ticks", "session"),
    hot.HotRoute("waits", frozenset({"GET"}), "/hot/waits", f"{HERE}:waits", "session"),
    hot.HotRoute("breaks", frozenset({"GET"}), "/hot/breaks", f"{HERE}:breaks", "session"),
    hot.HotRoute("midway", frozenset({"GET"}), "/hot/midway", f"{HERE}:breaks_midway", "session"),
)
PK = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
ECHO = f"/hot/{PK}/echo"


async def django(scope, receive, send):
    """Stands in for Django: reads the body and answers."""
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Frame-Options", b"SAMEORIGIN")]})
    await send({"type": "http.response.body", "body": f"django {size}".encode()})


@pytest.fixture
def app():
    return Dispatcher(django, ROUTES)


ALICE = 4711


@pytest.fixture
def cookie(monkeypatch):
    """The cookie header of a session that the database would know: no database, so that a wall costs no flush."""
    monkeypatch.setattr(sessions, "user_id_behind", {"valid": ALICE}.get)
    return {"cookie": f"{settings.SESSION_COOKIE_NAME}=valid"}


@pytest.fixture
def real_cookie(transactional_db, alice_client):
    """Alice's cookie header. A second thread reads the session, so it must be committed."""
    return {"cookie": f"{settings.SESSION_COOKIE_NAME}={alice_client.cookies[settings.SESSION_COOKIE_NAME].value}"}


async def test_a_signed_in_user_reaches_the_handler_with_converted_arguments(app, real_cookie, alice):
    answer = await ask(app, "POST", ECHO + "?after=7&after=8", headers=real_cookie, body=[b"hello", b" you"])

    assert (answer.status, answer.body) == (200, f"{alice.pk} {PK} hello you".encode())
    assert SEEN[0].query == {"after": "8"}
    assert SEEN[0].request_id == answer.header("x-request-id")


async def test_every_other_path_is_djangos(app):
    answer = await ask(app, "GET", f"/hot/{PK}/echo/more")
    assert answer.body == b"django 0"
    answer = await ask(app, "GET", "/hot/not-a-uuid/echo")
    assert answer.body == b"django 0"


@pytest.mark.parametrize(
    "headers", [{}, {"cookie": "session="}, {"cookie": "session=nonsense"}, {"cookie": "\xff=;;="}]
)
async def test_without_a_valid_session_the_answer_is_401_and_nothing_runs(app, cookie, headers):
    answer = await ask(app, "GET", ECHO, headers=headers)
    assert answer.status == 401
    assert SEEN == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "127.0.0.1@evil", "[::1", None])
async def test_a_foreign_host_is_refused_on_hot_routes_and_pages_alike_a9(app, cookie, host):
    for path in (ECHO, "/anything/"):
        answer = await ask(app, "GET", path, headers={**cookie, "host": host, "x-forwarded-host": "127.0.0.1"})
        assert answer.status == 400
    assert SEEN == []


async def test_another_method_is_405_and_names_those_that_work(app, cookie):
    answer = await ask(app, "DELETE", ECHO, headers=cookie)
    assert answer.status == 405
    assert answer.header("allow") == "GET, POST"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "nonsense"])
async def test_a_call_started_by_another_site_is_refused_a7(app, cookie, site):
    answer = await ask(app, "GET", ECHO, headers={**cookie, "sec-fetch-site": site})
    assert answer.status == 403
    assert SEEN == []


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_our_own_pages_and_typed_addresses_are_served_a7(app, cookie, site):
    answer = await ask(app, "GET", ECHO, headers={**cookie, "sec-fetch-site": site})
    assert answer.status == 200


async def test_a_body_over_the_routes_limit_is_413_announced_or_not(app, cookie):
    announced = await ask(app, "POST", ECHO, headers={**cookie, "content-length": "11"}, body=b"x" * 11)
    assert announced.status == 413
    assert SEEN == []
    surprising = await ask(app, "POST", ECHO, headers=cookie, body=[b"x" * 6, b"x" * 5])
    assert surprising.status == 413


async def test_a_body_over_the_pages_limit_is_413_before_django_stores_it(app, settings):
    settings.REQUEST_BODY_LIMIT = 100
    fits = await ask(app, "POST", "/page/", body=[b"x" * 60, b"x" * 40])
    assert fits.body == b"django 100"
    too_much = await ask(app, "POST", "/page/", body=[b"x" * 60, b"x" * 41])
    assert too_much.status == 413


async def test_a_body_that_stops_arriving_is_dropped(app, cookie, monkeypatch):
    monkeypatch.setattr("config.dispatcher.BODY_SECONDS", 0.05)
    stalled = Connection(app, "POST", ECHO, headers=cookie, body=[b"x", b"y"])
    await stalled._incoming.get()  # the server never hands over the second half
    stalled._incoming._queue.clear()
    stalled._incoming.put_nowait({"type": "http.request", "body": b"x", "more_body": True})
    answer = await stalled.finished()
    assert answer.status == 408


async def test_a_reader_who_leaves_closes_the_iterator_at_once(app, cookie):
    stream = Connection(app, "GET", "/hot/ticks", headers=cookie)
    await stream.received(b"tick 3")
    assert EVENTS == []
    stream.leave()
    answer = await stream.finished()
    assert EVENTS == ["closed"]
    assert not answer.is_complete


async def test_a_stream_holds_no_thread_and_no_connection(app, real_cookie):
    streams = [Connection(app, "GET", "/hot/ticks", headers=real_cookie) for _ in range(20)]
    for stream in streams:
        await stream.received(b"tick 1")
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("hot-orm")]
    assert len(threads) <= 4

    def connections_of_threads():
        return connection.connection  # this thread's own, which in_thread closed

    assert await hot.in_thread(connections_of_threads) is None
    for stream in streams:
        stream.leave()
    await asyncio.gather(*(stream.finished() for stream in streams))
    assert EVENTS == ["closed"] * 20


async def test_one_lookup_serves_twenty_streams_of_one_session(app, cookie, monkeypatch):
    calls: list[str] = []
    real = sessions.user_id_behind
    monkeypatch.setattr(sessions, "user_id_behind", lambda key: calls.append(key) or real(key))
    await asyncio.gather(*(ask(app, "GET", ECHO, headers=cookie) for _ in range(20)))
    assert len(calls) == 1


async def test_a_disabled_user_loses_a_running_stream_i18(app, real_cookie, alice, monkeypatch):
    monkeypatch.setattr(sessions, "RECHECK_SECONDS", 0.05)
    monkeypatch.setattr(sessions, "REMEMBER_SECONDS", 0.01)
    stream = Connection(app, "GET", "/hot/ticks", headers=real_cookie)
    await stream.received(b"tick 1")
    await hot.in_thread(lambda: get_user_model().objects.filter(pk=alice.pk).update(is_active=False))
    answer = await stream.finished()
    assert answer.is_complete
    assert EVENTS == ["closed"]
    assert (await ask(app, "GET", ECHO, headers=real_cookie)).status == 401


async def test_a_disabled_user_gets_no_answer_that_was_still_awaited_i18(app, real_cookie, alice, monkeypatch):
    monkeypatch.setattr(sessions, "RECHECK_SECONDS", 0.05)
    monkeypatch.setattr(sessions, "REMEMBER_SECONDS", 0.01)
    call = asyncio.ensure_future(ask(app, "GET", "/hot/waits", headers=real_cookie))
    await asyncio.sleep(0.3)
    assert not call.done()
    await hot.in_thread(lambda: get_user_model().objects.filter(pk=alice.pk).update(is_active=False))
    answer = await asyncio.wait_for(call, 10)
    assert answer.status == 401
    assert EVENTS == ["ended: lost"]


async def test_an_ended_session_loses_access_i18(app, real_cookie, monkeypatch):
    monkeypatch.setattr(sessions, "REMEMBER_SECONDS", 0.01)
    assert (await ask(app, "GET", ECHO, headers=real_cookie)).status == 200
    await hot.in_thread(lambda: Session.objects.all().delete())
    await asyncio.sleep(0.02)
    assert (await ask(app, "GET", ECHO, headers=real_cookie)).status == 401


async def test_a_changed_password_ends_the_other_sessions_a8(app, real_cookie, alice, monkeypatch):
    monkeypatch.setattr(sessions, "REMEMBER_SECONDS", 0.01)

    def change():
        alice.set_password("another long password")
        alice.save()

    await hot.in_thread(change)
    assert (await ask(app, "GET", ECHO, headers=real_cookie)).status == 401


def test_access_is_lost_within_thirty_seconds_at_the_configured_times_i18():
    assert sessions.REMEMBER_SECONDS + sessions.RECHECK_SECONDS < 30


async def test_an_error_is_a_500_with_a_number_and_no_detail_i21(app, cookie):
    answer = await ask(app, "GET", "/hot/breaks", headers=cookie)
    assert answer.status == 500
    assert answer.header("x-request-id").encode() in answer.body
    assert b"secret" not in answer.body


async def test_an_error_in_mid_stream_leaves_the_response_unfinished(app, cookie):
    answer = await ask(app, "GET", "/hot/midway", headers=cookie)
    assert (answer.status, answer.body, answer.is_complete) == (200, b"first", False)


async def test_stopping_the_process_ends_open_streams_f21(app, cookie, monkeypatch):
    monkeypatch.setattr("config.dispatcher.DRAIN", f"{HERE}:drained")
    stream = Connection(app, "GET", "/hot/ticks", headers=cookie)
    await stream.received(b"tick 1")
    await app.drain()
    answer = await stream.finished()
    assert [f"drained {settings.DRAIN_SECONDS}", "closed"] == EVENTS
    assert answer.is_complete


async def drained(seconds: int) -> None:
    EVENTS.append(f"drained {seconds}")


async def test_starting_and_stopping_calls_the_declared_hooks_in_order(app, monkeypatch):
    monkeypatch.setattr("config.dispatcher.STARTUP", (f"{HERE}:start_ledger", f"{HERE}:start_chat"))
    monkeypatch.setattr("config.dispatcher.SHUTDOWN", (f"{HERE}:fails", f"{HERE}:stop_net"))
    monkeypatch.setattr("config.dispatcher.DRAIN", f"{HERE}:drained")
    monkeypatch.setattr("config.dispatcher.gc.freeze", lambda: EVENTS.append("freeze"))
    incoming, sent = asyncio.Queue(), []
    incoming.put_nowait({"type": "lifespan.startup"})
    incoming.put_nowait({"type": "lifespan.shutdown"})

    async def send(message):
        sent.append(message["type"])

    await app({"type": "lifespan"}, incoming.get, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert ["start ledger", "start chat", "freeze", f"drained {settings.DRAIN_SECONDS}", "stop net"] == EVENTS


def start_ledger() -> None:
    EVENTS.append("start ledger")


async def start_chat() -> None:
    EVENTS.append("start chat")


def fails() -> None:
    raise RuntimeError("one that fails to stop must not keep the next from stopping")


async def stop_net() -> None:
    EVENTS.append("stop net")


def test_every_declared_hook_and_route_exists():
    from config import dispatcher

    for dotted in (*dispatcher.STARTUP, *dispatcher.SHUTDOWN, dispatcher.DRAIN):
        module, _, name = dotted.partition(":")
        assert callable(getattr(__import__(module, fromlist=[name]), name)), dotted
    for route in hot.ROUTES:
        assert callable(route.handle), route.name


def test_a_route_writes_its_own_address():
    assert hot.url_for("generation-events", pk=uuid.UUID(PK)) == f"/chat/generations/{PK}/events"
    assert hot.ROUTES[0].match(f"/chat/generations/{PK}/events") == {"pk": uuid.UUID(PK)}
    with pytest.raises(LookupError):
        hot.url_for("nothing")


def test_a_route_that_nobody_authenticates_cannot_be_declared():
    with pytest.raises(ValueError, match="nobody checks magic"):
        Dispatcher(django, (hot.HotRoute("open", frozenset({"GET"}), "/open", f"{HERE}:echo", "magic"),))


async def test_a_websocket_is_closed(app):
    sent = []

    async def send(message):
        sent.append(message)

    await app({"type": "websocket"}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
