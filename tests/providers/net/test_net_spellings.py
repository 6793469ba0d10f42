"""S1, I5: no way of writing an inner address opens a connection; counted at the socket, on every surface."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from functools import lru_cache

import pytest
from yarl import URL

from providers import net
from providers.addresses import kind_of
from providers.clients.errors import ProviderError, ProviderUnreachable

# P stands for the listener's port. https and http are both tried where the spelling does not fix a scheme.
HOSTS = [
    # plain
    "127.0.0.1:P",
    "127.0.0.2:P",
    "127.255.255.254:P",
    "0.0.0.0:P",
    # IPv4 in other numbers
    "127.1:P",
    "127.0.1:P",
    "2130706433:P",
    "0x7f000001:P",
    "0x7F.0x0.0x0.0x1:P",
    "0x7f.1:P",
    "0177.0.0.1:P",
    "0177.1:P",
    "017700000001:P",
    "127.0.0.01:P",
    "127.000.000.001:P",
    "0127.0.0.1:P",
    "127.0x0.0.1:P",
    "0:P",
    "0x0:P",
    "00.0.0.0:P",
    "127.0.0.1.:P",
    "127.0.0.1..:P",
    "2130706433.:P",
    "4294967297:P",
    # other scripts
    "１２７.０.０.１:P",
    "127。0。0。1:P",
    "①②⑦.⓪.⓪.①:P",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:P",
    "localhoſt:P",
    "١٢٧.0.0.1:P",
    "127.0.0.1:٨٠",
    # IPv6, and IPv4 inside it
    "[::1]:P",
    "[0:0:0:0:0:0:0:1]:P",
    "[0000:0000:0000:0000:0000:0000:0000:0001]:P",
    "[::0001]:P",
    "[::]:P",
    "[::ffff:127.0.0.1]:P",
    "[::FFFF:7F00:1]:P",
    "[0:0:0:0:0:ffff:127.0.0.1]:P",
    "[::ffff:0:127.0.0.1]:P",
    "[::127.0.0.1]:P",
    "[::7f00:1]:P",
    "[2002:7f00:1::]:P",
    "[2002:7f00:0001:0:0:0:7f00:1]:P",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]:P",
    "[64:ff9b::127.0.0.1]:P",
    "[64:ff9b::7f00:1]:P",
    "[64:ff9b:1::7f00:1]:P",
    "[64:ff9b:1:7f00:0:100::]:P",
    "[fe80::5efe:127.0.0.1]:P",
    "[2606:4700::5efe:7f00:1]:P",
    "[2606:4700::200:5efe:7f00:1]:P",
    "[fe80::1]:P",
    "[fe80::1%25lo]:P",
    "[fe80::1%lo]:P",
    "[::1%lo]:P",
    "[::1%25lo]:P",
    "[[::1]]:P",
    "[127.0.0.1]:P",
    "[::1]x:P",
    "[::1].:P",
    "::1:P",
    # names
    "localhost:P",
    "LOCALHOST:P",
    "LocalHost:P",
    "localhost.:P",
    "a.localhost:P",
    "localhost.localdomain:P",
    "ip6-localhost:P",
    "loc%61lhost:P",
    "%6c%6f%63alhost:P",
    "127%2e0%2e0%2e1:P",
    "%31%32%37.0.0.1:P",
    # an authority that parsers read differently
    "example.org@127.0.0.1:P",
    "example.org:80@127.0.0.1:P",
    "127.0.0.1:P@example.org",
    ":@127.0.0.1:P",
    "@127.0.0.1:P",
    "127.0.0.1:P#@example.org",
    "127.0.0.1:P?@example.org",
    "127.0.0.1:P\\@example.org",
    "example.org\\@127.0.0.1:P",
    "127.0.0.1%2f@example.org:P",
    "127.0.0.1%00.example.org:P",
    "127.0.0.1\x00:P",
    "127.0.0.1 :P",
    "127.0.0.1\t:P",
    "127.0.\n0.1:P",
    "127.0.0.1:P:443",
    "127.0.0.1:0P",
    "127.0.0.1:+P",
    "127.0.0.1:-P",
    "127.0.0.1: P",
    "127.0.0.1:P ",
    "127.0.0.1,example.org:P",
    "127.0.0.1;example.org:P",
]
WHOLE = [
    "//127.0.0.1:P/",
    "///127.0.0.1:P/",
    "127.0.0.1:P",
    "http:127.0.0.1:P",
    "http:/127.0.0.1:P",
    "http:///127.0.0.1:P",
    "http:\\\\127.0.0.1:P",
    "HTTP://127.0.0.1:P/",
    " http://127.0.0.1:P/",
    "http://127.0.0.1:P/\n",
    "ht\ntp://127.0.0.1:P/",
    "tcp://127.0.0.1:P/",
    "ws://127.0.0.1:P/",
    "ftp://127.0.0.1:P/",
    "gopher://127.0.0.1:P/_x",
    "file:///etc/passwd",
    "http+unix://127.0.0.1:P/",
    "unix:///var/run/docker.sock",
    "javascript:fetch('http://127.0.0.1:P')",
    "data:text/plain,x",
    "https://example.org/../../127.0.0.1:P",
    "",
]
SPELLINGS = [f"{scheme}://{host}/v1" for host in HOSTS for scheme in ("http", "https")] + WHOLE


class Listener:
    """Counts connections on loopback, IPv4 and (where there is one) IPv6, on one port."""

    def __init__(self) -> None:
        self.count = 0
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port = self._sockets[0].getsockname()[1]
        with suppress(OSError):  # no IPv6 here, or the port is taken there
            self._sockets.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        for listening in self._sockets:
            threading.Thread(target=self._accept, args=[listening], daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            self.count += 1
            peer.close()

    def close(self) -> None:
        for listening in self._sockets:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()


@pytest.fixture(scope="module")
def listener():
    made = Listener()
    yield made
    made.close()


async def refused_by_both_calls(url: str) -> set[str]:
    codes = set()
    with pytest.raises(ProviderUnreachable) as caught:
        await net.request("GET", url, deadline=5)
    codes.add(caught.value.code)
    with pytest.raises(ProviderUnreachable) as caught:
        async with net.open_stream("POST", url, headers={}, content=b"{}", connect_timeout=5):
            pass
    codes.add(caught.value.code)
    return codes


def test_the_listener_counts_what_does_connect(listener):
    before = listener.count
    socket.create_connection(("127.0.0.1", listener.port)).close()
    for _ in range(100):
        if listener.count > before:
            break
        threading.Event().wait(0.01)
    assert listener.count == before + 1
    listener.count = 0


def test_the_table_is_long_enough():
    assert len(set(HOSTS)) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_a_spelling_of_an_inner_address_is_refused_everywhere(spelling, listener, allow):
    url = spelling.replace("P", str(listener.port))
    with pytest.raises(net.BadURL) as caught:
        net.parse_base_url(url)
    assert str(caught.value).endswith(".")  # a sentence
    assert await refused_by_both_calls(url) == {"blocked_address"}
    assert listener.count == 0


async def test_the_connection_itself_refuses_what_a_parser_lets_through(listener, allow, resolver, monkeypatch):
    """The last gate alone: the parser is taken away, so aiohttp connects to whatever it reads."""
    monkeypatch.setattr(net, "_admit", lru_cache(URL))
    tried = 0
    for spelling in SPELLINGS:
        url = spelling.replace("P", str(listener.port))
        try:
            URL(url)
        except ValueError:
            continue
        tried += 1
        with pytest.raises((ProviderError, ValueError, TypeError, AssertionError)):
            async with net.open_stream("POST", url, headers={}, content=b"{}", connect_timeout=5):
                pass
        assert listener.count == 0, url
    assert tried > 60
    # And the plainest of them is refused by our gate, not by accident.
    assert await refused_by_both_calls(f"http://127.0.0.1:{listener.port}/") == {"blocked_address"}
    assert await refused_by_both_calls(f"http://[::1]:{listener.port}/") == {"blocked_address"}


@pytest.mark.parametrize(
    "name", ["localhost", "inner.example.org", "metadata.google.internal", "router.lan", "127.0.0.1.nip.example"]
)
async def test_a_name_that_stands_for_an_inner_address_is_refused(name, listener, allow, resolver):
    for answer in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "fe80::1%eth0"):
        resolver.names[name] = [answer]
        assert await refused_by_both_calls(f"https://{name}:{listener.port}/v1") == {"blocked_address"}
    assert listener.count == 0


CLOSED = {
    # written by hand from RFC 6890, the IANA registries and the cloud vendors' pages
    "0.0.0.0": "this network",
    "0.1.2.3": "this network",
    "10.0.0.1": "private",
    "10.255.255.255": "private",
    "100.64.0.1": "shared",
    "100.127.255.255": "shared",
    "100.100.100.200": "service",
    "127.0.0.1": "loopback",
    "127.255.255.255": "loopback",
    "161.26.0.10": "service",
    "166.9.12.1": "service",
    "168.63.129.16": "service",
    "169.254.169.254": "link-local",
    "169.254.170.2": "link-local",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.1": "protocol",
    "192.0.0.192": "service",
    "192.0.2.1": "documentation",
    "192.80.8.124": "service",
    "192.88.99.1": "protocol",
    "192.168.0.1": "private",
    "198.18.0.1": "benchmark",
    "198.19.255.255": "benchmark",
    "198.51.100.1": "documentation",
    "199.36.153.8": "service",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "::2": "embedded this network",
    "::ffff:10.0.0.1": "embedded private",
    "::ffff:169.254.169.254": "embedded link-local",
    "::ffff:0:10.0.0.1": "embedded private",
    "::10.0.0.1": "embedded private",
    "::8.8.8.8": "reserved",  # compatible: obsolete, whatever is inside
    "64:ff9b::10.0.0.1": "embedded private",
    "64:ff9b::168.63.129.16": "embedded service",
    "64:ff9b:1::8.8.8.8": "reserved",
    "100::1": "reserved",
    "2001::1": "embedded reserved",  # Teredo hides 255.255.255.254
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "embedded documentation",  # 192.0.2.45, RFC 4380's example
    "2001:0:4136:e378:8000:63bf:f7f7:f7f7": "protocol",  # Teredo of 8.8.8.8
    "2001:2::1": "protocol",
    "2001:20::1": "protocol",
    "2001:db8::1": "documentation",
    "2002:a00:1::": "embedded private",
    "2002:808:808::": "tunnel",
    "2606:4700::5efe:a00:1": "embedded private",
    "3fff::1": "documentation",
    "3ffe::1": "protocol",
    "4000::1": "reserved",
    "5f00::1": "reserved",
    "fc00::1": "unique local",
    "fd00:ec2::254": "service",
    "fd00:ec2::23": "service",
    "fd20:ce::254": "service",
    "fe80::1": "link-local",
    "fe80::a9fe:a9fe": "link-local",
    "fec0::1": "link-local",
    "ff02::1": "multicast",
}
OPEN = ["1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"]
OPEN += ["128.0.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.20.0.0"]
OPEN += ["223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888"]
OPEN += ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2001:200::1"]


@pytest.mark.parametrize(("address", "kind"), CLOSED.items())
def test_an_address_that_leads_inside_is_named_for_what_it_is(address, kind):
    assert kind_of(address) == kind


@pytest.mark.parametrize("address", OPEN)
def test_a_public_address_is_global(address):
    assert kind_of(address) == "global"


ACCEPTED = {
    "https://api.example.org": "https://api.example.org",
    "https://api.example.org/": "https://api.example.org",
    "https://api.example.org/v1": "https://api.example.org/v1",
    "https://api.example.org/v1/": "https://api.example.org/v1",
    "HTTPS://API.Example.ORG/V1": "https://api.example.org/V1",
    "https://api.example.org:443/v1": "https://api.example.org/v1",
    "https://api.example.org:8443/v1": "https://api.example.org:8443/v1",
    "https://xn--bcher-kva.example/v1": "https://xn--bcher-kva.example/v1",
    "https://my_host.example.org/a/b-c/d.e~f": "https://my_host.example.org/a/b-c/d.e~f",
    "https://8.8.8.8/v1": "https://8.8.8.8/v1",
    "https://[2606:4700:4700:0:0:0:0:1111]/v1": "https://[2606:4700:4700::1111]/v1",
    "https://[2606:4700:4700::1111]:8443": "https://[2606:4700:4700::1111]:8443",
    "https://example.org/a%20b": "https://example.org/a%20b",
}


@pytest.mark.parametrize(("text", "canonical"), ACCEPTED.items())
def test_a_good_address_gets_one_canonical_form(text, canonical, allow):
    assert net.parse_base_url(text) == canonical
    assert net.parse_base_url(canonical) == canonical


BAD_SHAPES = {
    "https://example.org/v1?x=1": "question mark",
    "https://example.org/v1?": "question mark",
    "https://example.org/v1#x": "#",
    "https://user:pass@example.org/": "user name and password",
    "https://example.org/a/../b": ". or ..",
    "https://example.org/a/%2e%2E/b": ". or ..",
    "https://example.org/./b": ". or ..",
    "https://example.org/a//b": "empty step",
    "https://example.org/a%2fb": "encoded slash",
    "https://example.org/a%5cb": "encoded slash",
    "https://example.org/a%00b": "encoded slash",
    "https://example.org/a\\b": "backslash",
    "https://example.org/a b": "spaces",
    "https://example.org/{model}": "path",
    "https://example.org/%zz": "path",
    "https://example.org.": "dot at the end",
    "https://-a.example.org": "host name",
    "https://a..example.org": "host name",
    "https://" + "a" * 64 + ".example.org": "host name",
    "https://" + "a." * 130 + "org": "host name",
    "https://bücher.example": "xn--",
    "https://example.org:0": "port",
    "https://example.org:65536": "port",
    "https://example.org:": "port",
    "https://example.org:443x": "port",
    "http://example.org": "https://",
    "example.org/v1": "https://",
    "ftp://example.org": "https://",
    "https://": "host name",
    "https://printer": "inner network",
    "https://printer.local": "inner network",
    "https://example.org/" + "a" * 500: "500",
}


@pytest.mark.parametrize(("text", "hint"), BAD_SHAPES.items())
def test_a_bad_address_is_refused_with_a_sentence_that_helps(text, hint, allow):
    with pytest.raises(net.BadURL) as caught:
        net.parse_base_url(text)
    assert hint in str(caught.value)


def test_an_origin_always_names_its_port(allow):
    assert net.origin_of("https://Example.org/v1") == "https://example.org:443"
    assert net.origin_of("http://models.lan/v1") == "http://models.lan:80"
    assert net.origin_of("https://[2606:4700::1]:8443/x?y=1") == "https://[2606:4700::1]:8443"


@pytest.mark.parametrize("text", ["", ".", "..", "a\nb", "a" * 201, "a\x00"])
def test_a_model_id_that_cannot_be_a_step_of_a_path_is_refused(text):
    """S10"""
    with pytest.raises(net.BadURL):
        net.path_segment(text)


def test_a_model_id_cannot_leave_its_step_of_a_path():
    """S10"""
    assert net.path_segment("../../admin?x=1#y") == "..%2F..%2Fadmin%3Fx%3D1%23y"
    assert net.path_segment("anthropic/claude:free") == "anthropic%2Fclaude%3Afree"
    assert net.path_segment("модель") == "%D0%BC%D0%BE%D0%B4%D0%B5%D0%BB%D1%8C"
