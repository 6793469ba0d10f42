"""S10: keys and headers are visible ASCII on one line, checked when saved and again when sent; K4."""

from __future__ import annotations

import pytest

from providers import net
from providers.clients.errors import ProviderUnreachable
from tests.providers.net.raw_upstream import RawUpstream

SPLICES = [
    "a\r\nX-Injected: 1",
    "a\nX-Injected: 1",
    "a\rX-Injected: 1",
    "a\r\n\r\nGET /admin HTTP/1.1\r\nHost: inner\r\n\r\n",
    "a\x00b",
    "a\x0bb",
    "a\x1bb",
    "a\x7fb",
    "a\x85b",
    "a\u2028b",
    "a\tb",
    "schlüssel",
    "ключ",
    "k\u0435y",  # Cyrillic е
    "a\u200bb",
    "\ufeffa",
    "a\u560a",  # its last byte is a line feed in a naive cut to 8 bits
    "\ud800",
    " a",
    "a ",
    "",
]
NAMES = ["", "X A", "X:A", "X\nA", "X\r", "Ü", "X\x00", " X", "X ", "(x)", "x" * 65]


@pytest.mark.parametrize("text", SPLICES)
async def test_a_value_that_could_splice_a_request_is_refused(text, allow):
    """S10"""
    with pytest.raises(net.BadHeader) as caught:
        net.check_header_value(text)
    assert text == "" or text not in str(caught.value)
    with pytest.raises(net.BadHeader):
        net.check_key(text)
    async with RawUpstream() as upstream:
        allow(upstream.target)
        for headers in ({"X-Title": text}, {"X-A": "fine", "Authorization": text}):
            with pytest.raises(ProviderUnreachable) as caught:
                await net.request("POST", upstream.url, headers=headers)
            assert caught.value.code == "bad_header"
            with pytest.raises(ProviderUnreachable) as caught:
                async with net.open_stream("POST", upstream.url, headers=headers, content=b""):
                    pass
            assert (caught.value.code, caught.value.permanent) == ("bad_header", True)
            assert caught.value.__context__ is None
        assert upstream.connections == 0


@pytest.mark.parametrize("name", [*NAMES, *sorted(net.OURS), "Host", "CONTENT-LENGTH"])
async def test_a_header_name_that_is_none_or_is_ours_is_refused(name, allow):
    """S10, S4: no extra header steers the connection."""
    with pytest.raises(net.BadHeader):
        net.check_header_name(name)
    async with RawUpstream() as upstream:
        allow(upstream.target)
        with pytest.raises(ProviderUnreachable):
            await net.request("POST", upstream.url, headers={name: "a"})
        with pytest.raises(ProviderUnreachable):
            async with net.open_stream("POST", upstream.url, headers={name: "a"}, content=b""):
                pass
        assert upstream.connections == 0


def test_lengths_are_capped():
    assert net.check_key("k" * 2048)
    assert net.check_header_value("v" * 4096)
    with pytest.raises(net.BadHeader):
        net.check_key("k" * 2049)
    with pytest.raises(net.BadHeader):
        net.check_header_value("v" * 4097)


@pytest.mark.parametrize(
    "value", ["a", "ab", "Bearer sk-1", "My App (beta); v=1", "~!@#$%^&*()_+{}|:\"<>?`-=[]\\;',./"]
)
def test_ordinary_values_pass(value):
    assert net.check_header_value(value) == value


@pytest.mark.parametrize("key", ["sk-or-v1-0123456789abcdef", "AIzaSy_x-1", "a.b.c==", "x"])
def test_ordinary_keys_pass(key):
    assert net.check_key(key) == key


async def test_too_many_headers_are_refused(allow):
    async with RawUpstream() as upstream:
        allow(upstream.target)
        with pytest.raises(ProviderUnreachable):
            await net.request("GET", upstream.url, headers={f"X-{number}": "a" for number in range(65)})
        assert upstream.connections == 0


@pytest.mark.parametrize(
    "method", ["GET /admin HTTP/1.1\r\nHost: inner\r\n\r\n", "G\nT", "", "CONNECT", "TRACE", "get"]
)
async def test_a_method_that_is_none_is_refused(method, allow):
    """S10"""
    async with RawUpstream() as upstream:
        allow(upstream.target)
        with pytest.raises(ValueError, match="method"):
            await net.request(method, upstream.url)
        with pytest.raises(ValueError, match="method"):
            async with net.open_stream(method, upstream.url, headers={}, content=b""):
                pass
        assert upstream.connections == 0


@pytest.mark.parametrize("tail", ["/a b", "/a\r\nX: y", "/ä", "/a\x00", "/../x", "/%2e%2e/x", "/a\\b", "/{x}", "/a#b"])
async def test_a_path_that_could_splice_a_request_is_refused(tail, allow):
    """S10: a model id put raw into a path."""
    async with RawUpstream() as upstream:
        allow(upstream.target)
        with pytest.raises(ProviderUnreachable):
            await net.request("GET", upstream.url + tail)
        with pytest.raises(ProviderUnreachable):
            async with net.open_stream("GET", upstream.url + tail, headers={}, content=b""):
                pass
        assert upstream.connections == 0


@pytest.mark.parametrize("model_id", ["../../admin", "a?x=1", "a#b", "a b", "a/b:c", "модель", "a%2fb", "a\\b"])
async def test_a_model_id_arrives_as_one_step_of_the_path(model_id, allow):
    """S10"""
    async with RawUpstream() as upstream:
        allow(upstream.target)
        await net.request("GET", f"{upstream.url}/models/{net.path_segment(model_id)}/endpoints")
        async with net.open_stream(
            "GET", f"{upstream.url}/models/{net.path_segment(model_id)}/endpoints", headers={}, content=b""
        ):
            pass
        for heard in upstream.requests:
            path = heard.line.split(" ")[1]
            assert path.count("/") == 4
            assert path.startswith("/v1/models/")
            assert path.endswith("/endpoints")
            assert "?" not in path
            assert "#" not in path
