"""Which IP addresses this server may call: one table, read by the outbound door (threats.md S1).

`ipaddress.is_global` is not asked: its answers differ between Python releases, and it is true for ranges that lead
inside. The table is the IANA special-purpose registries, plus the addresses at which cloud vendors serve machines their
own secrets. IPv6 is an allowlist: what is not global unicast, or hides an IPv4 address that is not, is refused.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

GLOBAL = "global"
LISTABLE = frozenset({"loopback", "private", "shared", "benchmark", "unique local"})
"""Kinds an operator may open by listing a target. Every other kind stays closed, listed or not (S5)."""

_SERVICE_V4 = (  # looks public or private, answers with credentials or controls the machine
    "100.100.100.200/32",  # Alibaba Cloud metadata
    "161.26.0.0/16",  # IBM Cloud service endpoints
    "166.8.0.0/14",  # IBM Cloud service endpoints
    "168.63.129.16/32",  # Azure wire server
    "192.0.0.192/32",  # Oracle Cloud metadata
    "192.80.8.124/32",  # Equinix Metal metadata
    "199.36.153.4/30",  # Google restricted API addresses
    "199.36.153.8/30",  # Google private API addresses
)
_V4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), kind)
    for kind, networks in (
        ("service", _SERVICE_V4),
        ("this network", ("0.0.0.0/8",)),
        ("private", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
        ("shared", ("100.64.0.0/10",)),
        ("loopback", ("127.0.0.0/8",)),
        ("link-local", ("169.254.0.0/16",)),
        ("protocol", ("192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24")),
        ("documentation", ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")),
        ("benchmark", ("198.18.0.0/15",)),
        ("multicast", ("224.0.0.0/4",)),
        ("reserved", ("240.0.0.0/4",)),
    )
    for network in networks
)
_V6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), kind)
    for kind, networks in (
        ("service", ("fd00:ec2::/32", "fd20:ce::/32")),  # Amazon and Google metadata
        ("loopback", ("::1/128",)),
        ("unspecified", ("::/128",)),
        ("unique local", ("fc00::/7",)),
        ("link-local", ("fe80::/10", "fec0::/10")),
        ("multicast", ("ff00::/8",)),
        ("documentation", ("2001:db8::/32", "3fff::/20")),
        ("protocol", ("2001::/23", "2620:4f:8000::/48", "3ffe::/16")),  # Teredo lies in the first
        ("tunnel", ("2002::/16",)),  # 6to4
    )
    for network in networks
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)


def embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address inside an IPv6 one: mapped, translated, compatible, NAT64, 6to4, Teredo or ISATAP."""
    if isinstance(address, IPv4Address):
        return None
    bits = int(address)
    low = bits & 0xFFFFFFFF
    top96 = bits >> 32
    if top96 in (0xFFFF, 0xFFFF0000) or (top96 == 0 and low > 1) or address in _NAT64:
        return IPv4Address(low)
    if bits >> 112 == 0x2002:
        return IPv4Address((bits >> 80) & 0xFFFFFFFF)
    if bits >> 96 == 0x20010000:
        return IPv4Address(low ^ 0xFFFFFFFF)
    if (bits >> 32) & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(low)
    return None


def kind_of(address: Address | str) -> str:
    """ "global" for an address anybody may call, else the kind of range it lies in.

    An IPv6 address with an IPv4 one inside is judged by both. Only mapped and NAT64 forms can be global: the other
    embeddings are obsolete, so nothing is lost by refusing them. Raises ValueError for text that is no address.
    """
    if isinstance(address, str):
        address = ip_address(address)
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _V4 if address in network), GLOBAL)
    if address.scope_id is not None:
        return "link-local"
    inner = embedded(address)
    if inner is not None:
        kind = kind_of(inner)
        if kind != GLOBAL:
            return f"embedded {kind}"
        if address in _NAT64 or int(address) >> 32 == 0xFFFF:
            return GLOBAL
    for network, kind in _V6:
        if address in network:
            return kind
    return GLOBAL if address in _GLOBAL_UNICAST else "reserved"
