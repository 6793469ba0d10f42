"""F2: a certificate that is not the name's own ends the call before a byte of it is sent; no plaintext fallback (I1)."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from providers import net
from providers.clients.errors import ProviderBroken, ProviderUnreachable
from tests.providers.net.raw_upstream import OK, RawUpstream

NOW = datetime.datetime.now(datetime.UTC)
YEAR = datetime.timedelta(days=365)


class Authority:
    """A certificate authority of our own, and the certificates it makes."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.certificate = self._build(self.name, self.key, self.name, self.key, [], NOW - YEAR, NOW + YEAR, is_ca=True)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def _build(self, subject, key, issuer, issuer_key, names, begins, ends, *, is_ca):
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    def server(self, folder, *names, begins=NOW - YEAR, ends=NOW + YEAR, self_signed=False) -> ssl.SSLContext:
        """A server's context with a fresh certificate for `names` (host names or IP addresses)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        alternatives = []
        for name in names:
            try:
                alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        issuer, issuer_key = (subject, key) if self_signed else (self.name, self.key)
        made = self._build(subject, key, issuer, issuer_key, alternatives, begins, ends, is_ca=False)
        path = folder / "server.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def context(authority):
    made = net._tls_context.__wrapped__()
    made.load_verify_locations(cadata=authority.pem)
    return made


@pytest.fixture
async def trusted(authority, context, monkeypatch):
    """The door as it is, and in addition it trusts our authority."""
    monkeypatch.setattr(net, "_tls_context", lambda: context)
    yield authority
    await net.close()


async def by_request(url):
    return (
        await net.request("POST", url, headers={"Authorization": "Bearer sk-SENTINEL"}, content=b"{}", deadline=5)
    ).body


async def by_stream(url):
    async with net.open_stream(
        "POST", url, headers={"Authorization": "Bearer sk-SENTINEL"}, content=b"{}", connect_timeout=5
    ) as stream:
        return b"".join([chunk async for chunk in stream.chunks()])


both_calls = pytest.mark.parametrize("call", [by_request, by_stream])


@both_calls
async def test_a_good_certificate_is_accepted_under_its_name(call, trusted, allow, resolver, tmp_path):
    """S2: the checked address is connected to; server name and Host are the URL's."""
    heard_names = []
    context = trusted.server(tmp_path, "models.example.org")
    context.sni_callback = lambda made, name, _: heard_names.append(name)
    async with RawUpstream(host="127.0.0.2", tls=context) as upstream:
        allow("127.0.0.2/32")
        resolver.names["models.example.org"] = ["127.0.0.2"]
        assert await call(f"https://models.example.org:{upstream.port}/v1") == b"{}"
        assert heard_names == ["models.example.org"]
        assert upstream.requests[0].header("host") == [f"models.example.org:{upstream.port}"]


@both_calls
async def test_a_certificate_may_name_an_address(call, trusted, allow, tmp_path):
    async with RawUpstream(tls=trusted.server(tmp_path, "127.0.0.1")) as upstream:
        allow(upstream.target)
        assert await call(upstream.url) == b"{}"


async def refused(call, url, upstream):
    with pytest.raises(ProviderUnreachable) as caught:
        await call(url)
    assert caught.value.code == "tls_error"
    assert caught.value.__context__ is None
    assert upstream.requests == []  # nothing was sent


@both_calls
async def test_a_self_signed_certificate_is_refused(call, trusted, allow, tmp_path):
    async with RawUpstream(tls=trusted.server(tmp_path, "127.0.0.1", self_signed=True)) as upstream:
        allow(upstream.target)
        await refused(call, upstream.url, upstream)


@both_calls
async def test_an_unknown_authority_is_refused(call, allow, tmp_path, authority):
    async with RawUpstream(tls=authority.server(tmp_path, "127.0.0.1")) as upstream:
        allow(upstream.target)
        await refused(call, upstream.url, upstream)


@both_calls
@pytest.mark.parametrize("names", [("other.example.org",), ("127.0.0.2",), ("example.org",), ("*.org",)])
async def test_a_certificate_for_another_name_is_refused(call, names, trusted, allow, resolver, tmp_path):
    async with RawUpstream(host="127.0.0.2", tls=trusted.server(tmp_path, *names)) as upstream:
        allow("127.0.0.2/32")
        resolver.names["models.example.org"] = ["127.0.0.2"]
        await refused(call, f"https://models.example.org:{upstream.port}/v1", upstream)


@both_calls
@pytest.mark.parametrize(
    ("begins", "ends"), [(NOW - YEAR, NOW - datetime.timedelta(days=1)), (NOW + datetime.timedelta(days=1), NOW + YEAR)]
)
async def test_a_certificate_of_another_time_is_refused(call, begins, ends, trusted, allow, tmp_path):
    async with RawUpstream(tls=trusted.server(tmp_path, "127.0.0.1", begins=begins, ends=ends)) as upstream:
        allow(upstream.target)
        await refused(call, upstream.url, upstream)


@both_calls
async def test_an_old_protocol_is_refused(call, trusted, allow, tmp_path):
    context = trusted.server(tmp_path, "127.0.0.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    async with RawUpstream(tls=context) as upstream:
        allow(upstream.target)
        with pytest.raises(ProviderUnreachable) as caught:
            await call(upstream.url)
        assert caught.value.code in {"tls_error", "unreachable"}  # this server sends no alert, it hangs up
        assert upstream.requests == []


@both_calls
async def test_a_server_without_tls_gets_no_plaintext(call, allow):
    """F2, I1"""
    heard = b""

    async def listen(reader, writer):
        nonlocal heard
        heard += await reader.read(65536)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with RawUpstream(on_connect=listen) as upstream:
        allow(upstream.target)
        with pytest.raises(ProviderUnreachable) as caught:
            await call(f"https://{upstream.target}/v1")
        assert caught.value.code == "tls_error"
        assert upstream.connections == 1
        assert b"SENTINEL" not in heard
        assert b"POST" not in heard


@pytest.mark.slow
@both_calls
async def test_a_handshake_that_goes_silent_ends_at_the_connect_deadline(call, allow):
    """F3"""

    async def silent(reader, writer):
        await reader.read(65536)
        await asyncio.sleep(10)

    async with RawUpstream(on_connect=silent) as upstream:
        allow(upstream.target)
        url, begun = f"https://{upstream.target}/v1", time.monotonic()
        with pytest.raises(ProviderUnreachable) as caught:
            if call is by_request:
                await net.request("POST", url, content=b"", deadline=5, connect_timeout=0.3)
            else:
                async with net.open_stream("POST", url, headers={}, content=b"", connect_timeout=0.3):
                    pass
        assert caught.value.code == "unreachable"  # nothing was sent
        assert time.monotonic() - begun < 1.5


@both_calls
async def test_a_handshake_that_is_cut_is_a_failure_to_connect(call, allow):
    async def cut(reader, writer):
        await reader.read(65536)

    async with RawUpstream(on_connect=cut) as upstream:
        allow(upstream.target)
        with pytest.raises(ProviderUnreachable) as caught:
            await call(f"https://{upstream.target}/v1")
        assert caught.value.code in {"unreachable", "tls_error"}


async def test_the_context_is_strict():
    context = net._tls_context.__wrapped__()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) > 50


async def test_a_large_answer_and_the_next_call_share_an_encrypted_connection(trusted, allow, tmp_path):
    """S9: a slow reader makes the other side wait through TLS too; then the connection serves the next call."""
    size = 3_000_000

    async def answer(upstream, writer, heard):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(size // 1000):
            writer.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with RawUpstream(answer, tls=trusted.server(tmp_path, "127.0.0.1")) as upstream:
        allow(upstream.target)
        for _ in range(2):
            total = 0
            async with net.open_stream("POST", upstream.url, headers={}, content=b"{}") as stream:
                while chunk := await stream.next_chunk():
                    if not total:
                        await asyncio.sleep(0.2)
                        assert stream._answer.received < 1_000_000
                    total += len(chunk)
            assert total == size
        upstream.script = RawUpstream().script
        assert await by_request(upstream.url) == b"{}"
        assert (upstream.connections, len(upstream.requests)) == (1, 3)


@pytest.mark.parametrize("end", ["cut", "behind the answer"])
async def test_an_encrypted_connection_that_is_cut_or_says_too_much_is_not_used_again(end, trusted, allow, tmp_path):
    """S8, F5"""

    async def answer(upstream, writer, heard):
        if len(upstream.requests) > 1:
            writer.write(OK)
        elif end == "cut":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}")
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.transport.abort()
        else:
            writer.write(OK + OK.replace(b"{}", b"no"))

    async with RawUpstream(answer, tls=trusted.server(tmp_path, "127.0.0.1")) as upstream:
        allow(upstream.target)
        with pytest.raises(ProviderBroken) as caught:
            await by_stream(upstream.url)
        assert caught.value.code == ("interrupted" if end == "cut" else "unexpected_content")
        assert await by_stream(upstream.url) == b"{}"
        assert upstream.connections == 2
