"""The policy for outgoing requests, on its own: what it allows, and that nothing special slips through."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from maintd.delivery.egress import Egress

ADDRESSES = st.one_of(
    st.ip_addresses(),
    st.ip_addresses(network="2000::/3"),
    st.ip_addresses(network="2001::/16"),
    st.ip_addresses(network="192.0.0.0/8"),
)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "192.0.1.1", "2606:4700:4700::1111", "2a00:1450::1"])
def test_global_addresses_are_allowed(address: str) -> None:
    """Receivers on the internet can be reached without any option."""
    assert Egress().permits(address)


@pytest.mark.parametrize(
    "address",
    [
        "::ffff:8.8.8.8",
        "::8.8.8.8",
        "64:ff9b::808:808",
        "64:ff9b:1::808:808",
        "2002:808:808::1",
        "2001:0:808:808:0:ffff:f7f7:f7f7",
        "192.88.99.1",
        "3fff::1",
        "100::1",
        "4000::1",
    ],
)
def test_ways_around_are_not_allowed(address: str) -> None:
    """Translators, tunnels and their relays are not used even to what is global, nor addresses nobody should have."""
    assert not Egress().permits(address)


@given(ADDRESSES)
def test_what_is_allowed_is_global(address: IPv4Address | IPv6Address) -> None:
    """Nothing is allowed by default that Python's ipaddress calls anything but global."""
    if Egress().permits(str(address)):
        assert address.is_global
        assert not (address.is_multicast or address.is_private or address.is_reserved or address.is_link_local)


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:0:0", "::", "64:ff9b::"]))
def test_every_ipv4_address_within_ipv6_is_judged(inner: IPv4Address, prefix: str) -> None:
    """In a prefix of translators that is allowed, an address is as good as the IPv4 address that it holds."""
    outer = IPv6Address(int(IPv6Address(prefix)) | int(inner))
    egress = Egress((ip_network(f"{prefix}/96"),))

    if int(outer) != 1:
        assert egress.permits(str(outer)) == egress.permits(str(inner))
    assert not Egress().permits(str(outer))


@pytest.mark.parametrize(
    ("network", "address", "permitted"),
    [
        ("2002::/16", "2002:808:808::1", True),
        ("2002::/16", "2002:a9fe:a9fe::1", False),
        ("2001::/32", "2001:0:808:808:0:ffff:f7f7:f7f7", True),
        ("2001::/32", "2001:0:a00:1:0:ffff:f7f7:f7f7", False),
        ("2001::/32", "2001:0:808:808:0:ffff:80ff:fffe", False),
        ("64:ff9b:1::/48", "64:ff9b:1::808:808", False),
        ("fe80::/10", "fe80::1%eth0", False),
        ("::ffff:0:0/96", "::ffff:127.0.0.1", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", False),
        ("fd00::/8", "fd00::1", True),
        ("::1/128", "::1", True),
    ],
)
def test_an_allowed_network_opens_itself_and_no_more(network: str, address: str, permitted: bool) -> None:
    """Tunnels lead to IPv4 addresses, which must be allowed too; what cannot be told is not allowed at all."""
    assert permitted == Egress((ip_network(network),)).permits(address)


@given(ADDRESSES, st.integers(0, 32))
def test_denied_wins(address: IPv4Address | IPv6Address, shorter: int) -> None:
    """What is denied is denied, however it is allowed."""
    network = ip_network((address, address.max_prefixlen - shorter), strict=False)

    assert not Egress((network, ip_network("0.0.0.0/0"), ip_network("::/0")), (network,)).permits(str(address))


def test_denied_is_denied_within_a_tunnel_too() -> None:
    """A denied IPv4 network is not reached through NAT64 that is allowed."""
    egress = Egress((ip_network("64:ff9b::/96"),), (ip_network("8.8.8.0/24"),))

    assert not egress.permits("64:ff9b::808:808")
    assert egress.permits("64:ff9b::101:101")


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f.0.0.1", "1.1.1.1 ", "1.1.1.1/32", "[::1]", "::1%"])
def test_what_is_no_address_is_not_allowed(text: str) -> None:
    """Whatever is about to be dialled must read as an address."""
    assert not Egress((ip_network("0.0.0.0/0"), ip_network("::/0"))).permits(text)


@pytest.mark.parametrize(
    "url",
    [
        "https://receiver.example",
        "https://receiver.example/maintd",
        "https://receiver.example?token=a%20b",
        "HTTPS://Receiver.Example:443/a@b//c:d?e=f/../g&h=%C3%BC",
        "https://xn--bcher-kva.example:8443/[x]!$&'()*+,;=~",
        "https://a-1.1st.example/",
        "https://1.1.1.1/",
        "https://[2606:4700:4700::1111]:8443/",
    ],
)
def test_usual_urls_are_allowed(url: str) -> None:
    """What people really have is not refused."""
    assert Egress().fault_of_url(url) is None


@given(st.from_regex(r"https?://[ -~]{1,40}", fullmatch=True) | st.from_regex(r"https://[a-z0-9.:@\[\]%\\/?-]{1,40}"))
def test_the_sender_reads_an_allowed_url_as_it_was_judged(url: str) -> None:
    """The library that sends takes from an allowed URL the host that was judged: a name, or an allowed address."""
    egress = Egress(allow_http=True, allowed_ports=tuple(range(1, 65536)))
    if egress.fault_of_url(url) is not None:
        return
    read = URL(url)

    assert read.raw_host is not None
    authority = url.split("/")[2].split("?")[0].lower()
    assert authority.startswith(read.raw_host) or authority.startswith("[")
    assert read.user is None
    assert read.password is None
    try:
        address = str(ip_address(read.raw_host))
    except ValueError:
        assert not read.raw_host.rpartition(".")[2].isdigit()
    else:
        assert egress.permits(address)


def test_no_fault_repeats_the_url() -> None:
    """A URL may be a secret: what is wrong with it is said without it."""
    for url in ("ftp://s3cr3t.example/", "https://u:s3cr3t@h.example/", "https://s3cr3t/", "https://s3cr3t.example:1/"):
        fault = Egress().fault_of_url(url)
        assert fault is not None
        assert "s3cr3t" not in fault
