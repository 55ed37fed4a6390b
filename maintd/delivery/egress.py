"""Where a request may go: the policy for endpoints that somebody other than the operator has chosen.

A project gives us a URL and we send a request to it from a controller, which reaches much that the project does not.
So two things are judged. The URL, when it is made: its grammar is so narrow that two parsers cannot read it in two
ways, and every notation of an address but the usual one is refused. And the *address*, at the moment of each
connection, for a name can lead elsewhere the second time it is looked up.

An address may be dialled when it is not among the denied networks, and is either global unicast with no special
purpose or among the allowed networks, and when the same holds for every IPv4 address that it embeds: a translator or
tunnel would carry the request there. What is special is listed here, from the IANA registries, and not asked of
`ipaddress.is_global`, whose answer changes with the version of Python and lets NAT64, 6to4 and multicast through.

With a proxy it is the proxy that looks up names and connects; then only the URL, and an address written in it, are
judged here. Pure: no look-up, no socket. What is wrong is said in sentences that never repeat the URL and never tell
what a name leads to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

URL_CHARS: Final = 2048
NOT_ALLOWED: Final = "the address is not allowed"
"""All that is ever said of an address."""


@dataclass(frozen=True, slots=True)
class Egress:
    """What is allowed. `denied_networks` wins over everything; `allowed_networks` adds to what is global.

    `proxy` is the http:// URL of a proxy through which every request goes; it may hold a password.
    """

    allowed_networks: tuple[Network, ...] = ()
    denied_networks: tuple[Network, ...] = ()
    allow_http: bool = False
    allowed_ports: tuple[int, ...] = (443, 8443)
    proxy: str | None = field(default=None, repr=False)

    def fault_of_url(self, url: str) -> str | None:
        """What is wrong with a URL to send to, in words for whoever gave it; None where nothing is."""
        if len(url) > URL_CHARS:
            return f"the URL is longer than {URL_CHARS} characters"
        if not _CHARACTERS.fullmatch(url):
            return (
                "the URL holds a character that has no place in one; "
                "write it as % and two hexadecimal digits, and an international name in its xn-- form"
            )
        if _CONTROL.search(url):
            return "the URL holds a control character, written with %"
        if "#" in url:
            return "a URL to send to has no '#'"
        parts = _URL.fullmatch(url)
        if parts is None:
            return "the URL is not made like https://HOST/PATH or https://HOST:PORT/PATH"
        scheme, authority = parts["scheme"].lower(), parts["authority"]
        if "@" in authority:
            return "the URL holds a user or a password; the signature is what a receiver checks"
        if scheme == "http" and not self.allow_http:
            return "http is not allowed, only https"
        place = _AUTHORITY.fullmatch(authority)
        if place is None:
            return _NO_HOST
        port = int(place["port"] or (443 if scheme == "https" else 80))
        if port not in self.allowed_ports:
            return f"the port is not allowed; there is {', '.join(map(str, self.allowed_ports))}"
        literal = place["v6"] or (place["name"] if _NUMERIC.search(place["name"]) else None)
        if literal is None:
            return None if _NAME.fullmatch(place["name"]) else _NO_HOST
        address = _address(literal)
        if address is None:
            return _NO_HOST
        return None if self._permits(address) else NOT_ALLOWED

    def permits(self, address: str) -> bool:
        """Whether a connection to this address, as it is about to be dialled, may be made."""
        found = _address(address)
        return found is not None and self._permits(found)

    def _permits(self, address: Address) -> bool:
        if any(address in network for network in self.denied_networks):
            return False
        if not (_ordinary(address) or any(address in network for network in self.allowed_networks)):
            return False
        return all(embedded is not None and self._permits(embedded) for embedded in _embedded(address))


# --- URLs ------------------------------------------------------------------------------------------------------------

_CHARACTERS: Final = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")
"""RFC 3986: no space, no control character, no backslash (which some take for '/'), nothing outside of ASCII (which
becomes another host after normalisation: a full stop of another script, digits in circles)."""
_CONTROL: Final = re.compile(r"%(?:[01][0-9A-Fa-f]|7[Ff])")
_URL: Final = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?]*)(?:[/?].*)?", re.IGNORECASE)
_AUTHORITY: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]|(?P<name>[A-Za-z0-9.-]{1,253}))(?::(?P<port>[1-9][0-9]{0,4}))?"
)
"""No escapes and no zone ids; a port is digits and never empty."""
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
"""At least two labels, so that no search domain of ours is needed, and no dot at the end."""
_NUMERIC: Final = re.compile(r"(?:^|\.)(?:[0-9]+|0[Xx][0-9A-Fa-f]*)\.?$")
"""A host that ends in a number is an address to some (the URL standard's "ends in a number"): 0x7f.1, 2130706433."""
_NO_HOST: Final = (
    "the host is neither a name with a dot in it (of letters, digits and '-'), nor an IPv4 address of four decimal "
    "numbers, nor an IPv6 address in brackets; a port is a number"
)


# --- addresses -------------------------------------------------------------------------------------------------------

_SPECIAL_V4: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by providers; one cloud's metadata service is in it
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # another's metadata service, on an address that looks public
        "169.254.0.0/16",  # link-local, with the usual metadata service
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_GLOBAL_V6: Final = IPv6Network("2000::/3")
"""All global unicast there is. Outside are ::, ::1, ::ffff:0:0/96 (mapped), ::/96 (compatible), 64:ff9b::/96 (NAT64),
100::/64 (discard), fc00::/7 (private), fe80::/10 (link-local), fec0::/10 (site-local), ff00::/8 (multicast)."""
_SPECIAL_V6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments; Teredo is in it
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)

_LOW_32_V6: Final = tuple(IPv6Network(text) for text in ("::/96", "::ffff:0:0/96", "64:ff9b::/96"))
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id is not None else address


def _ordinary(address: Address) -> bool:
    """Global unicast without a special purpose."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)


def _embedded(address: Address) -> Iterator[IPv4Address | None]:
    """The IPv4 addresses to which a translator or tunnel would carry what is sent to this one.

    None for one that cannot be told: where NAT64 has a prefix of its own (64:ff9b:1::/48) only the translator knows
    which bits are the address. ::1 is itself, not what its last bits look like.
    """
    if isinstance(address, IPv4Address) or int(address) == 1:
        return
    if any(address in network for network in _LOW_32_V6):
        yield IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _LOCAL_NAT64:
        yield None
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
