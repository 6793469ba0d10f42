"""Who is connected to, by whom, and what stays behind: S2 (rebinding), S3 (redirects), S5 (private targets), S8 (sharing)."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from django.core.exceptions import ImproperlyConfigured

from providers import net
from providers.apps import ProvidersConfig
from providers.clients.errors import ProviderBroken, ProviderUnreachable
from tests.providers.net.raw_upstream import OK, RawUpstream

pytestmark = pytest.mark.slow


async def by_request(url, **kwargs):
    response = await net.request("POST", url, content=b"{}", deadline=5, **kwargs)
    return response.status, response.body


async def by_stream(url, *, headers=None):
    async with net.open_stream("POST", url, headers=headers or {}, content=b"{}") as stream:
        return stream.status, b"".join([chunk async for chunk in stream.chunks()])


both_calls = pytest.mark.parametrize("call", [by_request, by_stream])


# -- S2: names ---------------------------------------------------------------------------------------------------------
# 127.0.0.2 stands for a public address: the operator's list opens it, and 127.0.0.1 stays closed.


@both_calls
async def test_a_name_that_is_bound_again_to_an_inner_address_is_refused(call, allow, resolver):
    """S2: good answer first, loopback next. Each new connection asks and judges again."""

    async def refuse_tls(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with (
        RawUpstream(host="127.0.0.2", on_connect=refuse_tls) as good,
        RawUpstream(host="127.0.0.1", port=good.port) as inner,
    ):
        name = f"models.example.org:{good.port}"
        allow("127.0.0.2/32")
        resolver.names["models.example.org"] = [["127.0.0.2"], ["127.0.0.1"]]
        url = f"https://{name}/"  # https: a name may be called so without being listed
        with pytest.raises(ProviderUnreachable) as caught:
            await call(url)
        assert caught.value.code == "tls_error"  # it did connect: the good one speaks no TLS
        assert good.connections == 1
        with pytest.raises(ProviderUnreachable) as caught:
            await call(url)
        assert caught.value.code == "blocked_address"
        assert (good.connections, inner.connections) == (1, 0)
        assert resolver.asked == ["models.example.org"] * 2


@both_calls
@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.2", "127.0.0.1"],
        ["127.0.0.1", "127.0.0.2"],
        ["127.0.0.2", "::1"],
        ["127.0.0.2", "169.254.169.254"],
        ["127.0.0.2", "fe80::1%lo"],
        ["8.8.8.8", "127.0.0.1"],
        ["8.8.8.8", "::ffff:127.0.0.1"],
    ],
)
async def test_one_bad_answer_among_good_ones_refuses_the_name(call, answers, allow, resolver):
    """S2"""
    async with RawUpstream(host="127.0.0.2") as good, RawUpstream(host="127.0.0.1", port=good.port) as inner:
        allow("127.0.0.2/32")
        resolver.names["models.example.org"] = answers
        with pytest.raises(ProviderUnreachable) as caught:
            await call(f"https://models.example.org:{good.port}/")
        assert caught.value.code == "blocked_address"
        assert caught.value.permanent
        assert (good.connections, inner.connections) == (0, 0)


@both_calls
async def test_a_name_without_an_answer_is_unreachable(call, allow, resolver):
    """S2, F1"""
    resolver.names["empty.example.org"] = []
    for name in ("empty.example.org", "missing.example.org"):
        with pytest.raises(ProviderUnreachable) as caught:
            await call(f"https://{name}/v1")
        assert caught.value.code == "unreachable"
        assert not caught.value.permanent


@both_calls
async def test_the_checked_address_is_called_under_its_own_name(call, allow, resolver):
    """S2: the Host header keeps the name; another name on the same address gets its own connection."""
    async with RawUpstream(host="127.0.0.2") as upstream:
        allow(f"one.example.org:{upstream.port}", f"two.example.org:{upstream.port}")
        resolver.names.update({"one.example.org": ["127.0.0.2"], "two.example.org": ["127.0.0.2"]})
        for name in ("one.example.org", "two.example.org"):
            await call(f"http://{name}:{upstream.port}/v1")
        assert [heard.header("host") for heard in upstream.requests] == [
            [f"one.example.org:{upstream.port}"],
            [f"two.example.org:{upstream.port}"],
        ]
        assert upstream.connections == 2


async def test_a_burst_asks_for_a_name_once(allow, resolver):
    async with RawUpstream(host="127.0.0.2") as upstream:
        allow(f"one.example.org:{upstream.port}")
        resolver.names["one.example.org"] = ["127.0.0.2"]
        await asyncio.gather(*(by_stream(f"http://one.example.org:{upstream.port}/") for _ in range(20)))
        assert len(upstream.requests) == 20
        assert len(resolver.asked) < 20


# -- S3: redirects -----------------------------------------------------------------------------------------------------


@both_calls
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 306, 307, 308, 399])
async def test_no_redirect_is_followed(call, status, allow):
    """S3: to an inner host, another host, another port, another scheme: the other side hears nothing."""
    async with RawUpstream() as other, RawUpstream(host="127.0.0.2") as upstream:
        allow("127.0.0.0/8")  # even to where a call would be allowed
        for location in (
            f"http://{other.target}/v1",
            f"https://{other.target}/v1",
            f"//{other.target}/v1",
            f"http://127.0.0.2:{other.port}/",
            "http://169.254.169.254/latest/meta-data",
            "https://example.org/",
            "file:///etc/passwd",
            "/elsewhere",
        ):
            upstream.script = (
                f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ).encode()
            with pytest.raises(ProviderBroken) as caught:
                await call(upstream.url, headers={"Authorization": "Bearer sk-SENTINEL"})
            assert (caught.value.code, caught.value.status) == ("unexpected_redirect", status)
        assert other.connections == 0
        assert len(upstream.requests) == 8


async def test_not_modified_is_an_answer_to_who_asked_for_it(allow):
    async with RawUpstream(b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n") as upstream:
        allow(upstream.target)
        response = await net.request("GET", upstream.url, headers={"If-None-Match": '"x"'})
        assert (response.status, response.body) == (304, b"")


# -- S5: what the operator lists ---------------------------------------------------------------------------------------


@both_calls
async def test_a_listed_target_works_and_its_neighbours_do_not(call, allow):
    """S5"""
    async with RawUpstream() as listed, RawUpstream() as next_port, RawUpstream(host="127.0.0.2") as next_host:
        allow(listed.target)
        assert net.parse_base_url(listed.url) == listed.url
        assert await call(listed.url) == (200, b"{}")
        for neighbour in (next_port, next_host):
            with pytest.raises(net.BadURL):
                net.parse_base_url(neighbour.url)
            with pytest.raises(ProviderUnreachable) as caught:
                await call(neighbour.url)
            assert caught.value.code == "blocked_address"
        assert (listed.connections, next_port.connections, next_host.connections) == (1, 0, 0)


@both_calls
async def test_a_listed_network_works_and_the_next_one_does_not(call, allow):
    """S5"""
    async with RawUpstream(host="127.0.1.7") as inside, RawUpstream(host="127.0.2.7") as outside:
        allow("127.0.1.0/24")
        assert await call(inside.url) == (200, b"{}")
        with pytest.raises(ProviderUnreachable):
            await call(outside.url)
        assert outside.connections == 0


@both_calls
async def test_the_host_table_opens_a_name_not_the_address_behind_it(call, allow):
    """S5: `manage.py run` names its companions; typing their address gets nobody in."""
    async with RawUpstream() as upstream:
        allow(hosts={"models.internal": ("127.0.0.1", upstream.port)})
        assert net.parse_base_url("http://models.internal/v1/") == "http://models.internal/v1"
        assert await call("http://models.internal/v1/models?x=1") == (200, b"{}")
        assert upstream.requests[0].line == "POST /v1/models?x=1 HTTP/1.1"
        assert upstream.requests[0].header("host") == ["models.internal"]
        for url in (upstream.url, f"http://localhost:{upstream.port}/v1"):
            with pytest.raises(ProviderUnreachable):
                await call(url)
        assert upstream.connections == 1


@both_calls
async def test_a_host_table_entry_with_a_port_opens_that_port_only(call, allow):
    """S5"""
    async with RawUpstream() as upstream:
        allow(hosts={"models.internal:8080": ("127.0.0.1", upstream.port)})
        assert await call("http://models.internal:8080/") == (200, b"{}")
        with pytest.raises(ProviderUnreachable) as caught:
            await call("http://models.internal/")
        assert caught.value.code == "blocked_address"


async def test_plain_http_is_for_listed_targets_only(allow, resolver):
    """S5: a key must not cross a network in the clear."""
    async with RawUpstream(host="127.0.0.2") as upstream:
        allow("127.0.0.2/32")
        resolver.names["models.example.org"] = ["127.0.0.2"]
        url = f"http://models.example.org:{upstream.port}/"
        with pytest.raises(net.BadURL, match="https"):
            net.parse_base_url(url)
        with pytest.raises(ProviderUnreachable):
            await by_request(url)
        assert upstream.connections == 0
        with pytest.raises(net.BadURL, match="https"):
            net.parse_base_url("http://8.8.8.8/v1")


@pytest.mark.parametrize("host", ["169.254.169.254", "100.100.100.200", "168.63.129.16", "224.0.0.1", "0.0.0.0"])
def test_metadata_stays_closed_even_inside_a_listed_network(host, allow):
    """S5"""
    allow("0.0.0.0/0", "::/0")
    for scheme in ("http", "https"):
        with pytest.raises(net.BadURL):
            net.parse_base_url(f"{scheme}://{host}/latest")
    with pytest.raises(net.BadURL):
        net.parse_base_url("https://[fd00:ec2::254]/latest")
    assert net.parse_base_url("http://10.1.2.3:8080") == "http://10.1.2.3:8080"


@both_calls
async def test_a_listed_name_cannot_lead_to_metadata(call, allow, resolver):
    """S5"""
    allow("models.lan:80", "0.0.0.0/0", "::/0")
    for answer in ("169.254.169.254", "fd00:ec2::254", "fe80::1", "::ffff:169.254.169.254", "::ffff:127.0.0.1"):
        resolver.names["models.lan"] = [answer]
        with pytest.raises(ProviderUnreachable) as caught:
            await call("http://models.lan/v1")
        assert caught.value.code == "blocked_address"


@pytest.mark.parametrize(
    ("targets", "hosts", "hint"),
    [
        (["10.1.2.3"], [], "host:port"),
        (["10.1.2.3:0"], [], "host:port"),
        (["10.1.2.3:99999"], [], "host:port"),
        (["127.1:80"], [], "host:port"),
        (["http://10.1.2.3:80"], [], "network"),
        (["10.1.2.3/8"], [], "network"),
        (["10.1.2.0/33"], [], "network"),
        (["169.254.169.254:80"], [], "never called"),
        (["168.63.129.16:80"], [], "never called"),
        ([], ["models.lan"], "name=address:port"),
        ([], ["models.lan=localhost:80"], "name=address:port"),
        ([], ["models.lan=127.0.0.1"], "name=address:port"),
        ([], ["=127.0.0.1:80"], "name=address:port"),
        ([], ["models.lan:x=127.0.0.1:80"], "name or name:port"),
        ([], ["10.0.0.1=127.0.0.1:80"], "name or name:port"),
        ([], ["models.lan=169.254.169.254:80"], "never called"),
    ],
)
def test_a_setting_that_cannot_be_read_stops_the_start_with_a_sentence(targets, hosts, hint, allow, settings):
    settings.OUTBOUND_PRIVATE_TARGETS, settings.OUTBOUND_HOSTS = targets, hosts
    before = net._rules
    with pytest.raises(ImproperlyConfigured, match="OUTBOUND_") as caught:
        ProvidersConfig.create("providers").ready()
    assert hint in str(caught.value)
    assert net._rules is before


def test_the_settings_reach_the_door(allow, settings):
    settings.OUTBOUND_PRIVATE_TARGETS = ["10.1.2.3:8080", "[fd12::1]:8080", "192.168.7.0/24", "Models.LAN:80"]
    settings.OUTBOUND_HOSTS = ["Trial.Internal:80=127.0.0.1:9000"]
    ProvidersConfig.create("providers").ready()
    for url in (
        "http://10.1.2.3:8080/v1",
        "http://[fd12::1]:8080/v1",
        "http://192.168.7.9:1234",
        "http://models.lan",
        "http://trial.internal/v1",
    ):
        assert net.parse_base_url(url) == url
    for url in ("http://10.1.2.3:8081/v1", "http://[fd12::2]:8080", "http://192.168.8.9:1234", "http://models.lan:81"):
        with pytest.raises(net.BadURL):
            net.parse_base_url(url)


# -- S8: nothing is shared between users -------------------------------------------------------------------------------


async def test_two_users_at_one_address_never_meet(allow):
    """S8: 200 interleaved calls; each carries its own key, and nothing an upstream set comes back."""

    async def greedy(upstream, writer, heard):
        await asyncio.sleep(random.random() / 200)
        writer.write(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: session=theirs; Path=/\r\nSet-Cookie: b=2; Domain=127.0.0.1\r\n"
            b"WWW-Authenticate: Basic realm=x\r\nAlt-Svc: h3=':443'\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(heard.body), heard.body)
        )

    async with RawUpstream(greedy) as upstream:
        allow(upstream.target)

        places = asyncio.Semaphore(20)

        async def call(number):
            async with places:
                await one_call(number)

        async def one_call(number):
            user = "alice" if number % 2 else "bob"
            body = json.dumps({"user": user, "number": number}).encode()
            headers = {"Authorization": f"Bearer sk-{user}", "X-Number": str(number)}
            if number % 3:
                async with net.open_stream("POST", upstream.url, headers=headers, content=body) as stream:
                    got = b"".join([chunk async for chunk in stream.chunks()])
            else:
                got = (await net.request("POST", upstream.url, headers=headers, content=body)).body
            assert got == body

        await asyncio.gather(*(call(number) for number in range(200)))
        assert len(upstream.requests) == 200
        assert upstream.connections < 200  # connections are shared, and only they
        for heard in upstream.requests:
            told = json.loads(heard.body)
            assert heard.header("authorization") == [f"Bearer sk-{told['user']}"]
            assert heard.header("x-number") == [str(told["number"])]
            assert heard.header("cookie") == []
            assert heard.header("accept-encoding") == ["identity"]


@both_calls
async def test_no_proxy_and_no_netrc_is_taken_from_the_surroundings(call, allow, monkeypatch, tmp_path):
    """S8"""
    async with RawUpstream() as upstream, RawUpstream() as proxy:
        allow(upstream.target)
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://{proxy.target}")
            monkeypatch.setenv(name.upper(), f"http://{proxy.target}")
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login alice password sk-SENTINEL\n")
        monkeypatch.setenv("NETRC", str(netrc))
        assert await call(upstream.url) == (200, b"{}")
        assert upstream.requests[0].header("authorization") == []
        assert proxy.connections == 0


async def test_what_a_caller_sends_arrives_letter_for_letter(allow):
    """S6, S8: no header of the caller's is lost, and placeholders stay what they are."""
    async with RawUpstream() as upstream:
        allow(upstream.target)
        headers = {
            "Authorization": "Bearer ${HOME}",
            "X-Title": "{0.__class__} %s {{7*7}}",
            "Content-Type": "text/plain",
        }
        await net.request("PUT", upstream.url + "/a%2Fb?q=%7BHOME%7D", headers=headers, content=b"\xff\x00{}")
        async with net.open_stream("POST", upstream.url, headers=headers, content=b"\xff\x00{}"):
            pass
        for heard in upstream.requests:
            assert heard.body == b"\xff\x00{}"
            for name, value in headers.items():
                assert heard.header(name) == [value]
        assert upstream.requests[0].line == "PUT /v1/a%2Fb?q=%7BHOME%7D HTTP/1.1"


# -- Pools and loops ---------------------------------------------------------------------------------------------------


async def test_a_finished_answer_gives_its_connection_back(allow):
    async with RawUpstream() as upstream:
        allow(upstream.target)
        for call in (by_request, by_stream) * 5:
            await call(upstream.url)
        assert (upstream.connections, len(upstream.requests)) == (1, 10)


async def test_a_connection_the_other_side_has_closed_is_not_used_again(allow):
    async with RawUpstream(OK) as upstream:  # answers once, then closes without a word
        allow(upstream.target)
        for _ in range(3):
            assert await by_stream(upstream.url) == (200, b"{}")
            await asyncio.sleep(0.05)
        assert upstream.connections == 3


@pytest.mark.parametrize("pause", [0, 0.05])
async def test_stopping_at_the_last_event_keeps_the_connection(pause, allow):
    """The bytes that end a body often come after the event that ends the text."""

    async def answer(upstream, writer, heard):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ne\r\ndata: [DONE]\n\n\r\n")
        await writer.drain()
        await asyncio.sleep(pause)
        writer.write(b"0\r\n\r\n")

    async with RawUpstream(answer) as upstream:
        allow(upstream.target)
        for _ in range(3):
            async with net.open_stream("POST", upstream.url, headers={}, content=b"{}") as stream:
                async for chunk in stream.chunks():
                    assert chunk == b"data: [DONE]\n\n"
                    break
            await asyncio.sleep(pause + 0.1)
        assert (upstream.connections, len(upstream.requests)) == (1, 3)


async def test_an_answer_that_does_not_end_is_not_waited_for(allow):
    gone = asyncio.Event()

    async def answer(upstream, writer, heard):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\ndata: [DONE]\n\n")
        await writer.drain()
        await upstream.reader_gone(writer)
        gone.set()

    async with RawUpstream(answer) as upstream:
        allow(upstream.target)
        async with net.open_stream("POST", upstream.url, headers={}, content=b"{}") as stream:
            assert await anext(stream.chunks()) == b"data: [DONE]\n\n"
        await asyncio.wait_for(gone.wait(), 2)


async def test_leaving_early_closes_the_connection(allow):
    """F15: a caller who leaves closes the upstream."""
    closed = asyncio.Event()

    async def endless(upstream, writer, heard):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"data: x\n\n")
                await writer.drain()
                await asyncio.sleep(0.001)
        finally:
            closed.set()

    async with RawUpstream(endless) as upstream:
        allow(upstream.target)
        async with net.open_stream("POST", upstream.url, headers={}, content=b"{}") as stream:
            async for chunk in stream.chunks():
                assert chunk.startswith(b"data: x")
                break
        await asyncio.wait_for(closed.wait(), 2)


async def test_cancelling_the_caller_closes_the_connection(allow):
    """F15, I20"""
    closed, begun = asyncio.Event(), asyncio.Event()

    async def silent(upstream, writer, heard):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\ndata: x\n\n")
        await writer.drain()
        begun.set()
        await upstream.reader_gone(writer)
        closed.set()

    async with RawUpstream(silent) as upstream:
        allow(upstream.target)
        task = asyncio.create_task(by_stream(upstream.url))
        await begun.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 2)


async def test_an_error_body_is_read_to_a_limit(allow):
    body = b"x" * 100_000
    answer = b"HTTP/1.1 500 Oops\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n" + body
    async with RawUpstream(answer) as upstream:
        allow(upstream.target)
        async with net.open_stream("POST", upstream.url, headers={}, content=b"{}") as stream:
            assert stream.status == 500
            assert await stream.read(1000) == body[:1000]
        response = await net.request("POST", upstream.url, content=b"{}")
        assert (response.status, response.body) == (500, body)


async def test_json_that_is_none_is_named(allow):
    for body in (b"<html>", b"", b"[" * 100_000, b"1" * 5000):
        async with RawUpstream(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)) as upstream:
            allow(upstream.target)
            response = await net.request("GET", upstream.url)
            with pytest.raises(ProviderBroken) as caught:
                response.json()
            assert caught.value.code == "unexpected_content"


async def test_a_stream_read_whole_is_the_answer_a_request_gives(allow):
    async with RawUpstream(b'HTTP/1.1 402 Pay\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 7\r\n\r\n{"a":1}') as upstream:
        allow(upstream.target)
        requested = await net.request("POST", upstream.url, content=b"{}")
        await net.close()
        async with net.open_stream("POST", upstream.url, headers={}, content=b"{}") as stream:
            streamed = await stream.whole()
        assert streamed == requested
        assert (streamed.status, streamed.headers["x-a"], streamed.json()) == (402, "1, 2", {"a": 1})


async def test_json_is_sent_as_json(allow):
    async with RawUpstream(OK) as upstream:
        allow(upstream.target)
        assert (await net.request("POST", upstream.url, json={"a": "ü"})).json() == {}
        heard = upstream.requests[0]
        assert heard.header("content-type") == ["application/json"]
        assert json.loads(heard.body) == {"a": "ü"}
