"""Which URLs a stranger may have us fetch: http and https, to public addresses, nothing else.

The checks of :func:`check_url` look at the URL alone; those of :func:`check_address` at the address
that will really be connected to. Both are needed: a public name may resolve to a private address.

1. Scheme http or https, no user, no fragment games: the URL is parsed once, and what was parsed is
   what gets connected.
2. Port 80, 443 or from 1024 up: other services' ports speak other protocols.
3. Address global, unicast, not reserved; IPv6 that stands for another IPv4 address is judged by
   that, or refused; a metadata service on a public address is refused by name.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from yarl import URL

from agents.templates.crafts.refusals import UnsafeAddressError

MAX_URL_CHARS: Final = 2_048
_LOWEST_PORT: Final = 1_024
_WEB_PORTS: Final = (80, 443)
# Azure's wire server answers on a public address, that of AWS also on a private one.
_METADATA: Final = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "fd00:ec2::254")))
# What somebody's own network is made of; link-local addresses are no part of it (metadata).
_PRIVATE: Final = tuple(
    map(
        ipaddress.ip_network,
        ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"),
    )
)
# What stands for other addresses, and what versions of Python still take for global.
_NEVER: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
    )
)
_NUMBER: Final = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII | re.IGNORECASE)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_url(text: str) -> URL:
    """Return ``text`` parsed, if it may be fetched as far as the URL itself tells.

    Raises:
        UnsafeAddressError: scheme, user, port or host are not a public web page's.
    """
    if len(text) > MAX_URL_CHARS or any(char <= " " or char == "\\" for char in text):
        raise UnsafeAddressError("the URL is too long, or holds spaces or backslashes")
    try:
        url = URL(text)
        port = url.port
    except ValueError as error:
        raise UnsafeAddressError("not a URL") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise UnsafeAddressError("only http and https URLs with a host", scheme=url.scheme[:32])
    if url.user is not None or url.password is not None:
        raise UnsafeAddressError("a URL with a user or password is refused")
    if port is None or (port not in _WEB_PORTS and port < _LOWEST_PORT):
        raise UnsafeAddressError("no web server's port", port=port)
    if _is_odd_number(url.host):
        raise UnsafeAddressError("an address is written with four numbers or in brackets")
    return url


def _is_odd_number(host: str) -> bool:
    """Say whether ``host`` is an address in a spelling that readers of URLs disagree about."""
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) is None:
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False


def check_literal(url: URL, *, allow_loopback: bool = False, allow_private: bool = False) -> None:
    """Check a host that is an address already: no resolver will be asked about it.

    Raises:
        UnsafeAddressError: it is one that :func:`check_address` refuses.
    """
    host = url.host or ""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return
    check_address(host, allow_loopback=allow_loopback, allow_private=allow_private)


def check_address(text: str, *, allow_loopback: bool = False, allow_private: bool = False) -> str:
    """Return ``text``, an IP address, if it is public.

    ``allow_private`` lets pass loopback and private networks, never link-local addresses or those
    of metadata services.

    Raises:
        UnsafeAddressError: it is ours, private, reserved, multicast, or hides such a one.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError as error:
        raise UnsafeAddressError("not an IP address", address=text[:64]) from error
    plain = _unmapped(address)
    allowed = (allow_loopback and plain.is_loopback) or (allow_private and _is_private(plain))
    if not (allowed or _is_public(plain)):
        raise UnsafeAddressError("the address is not public", address=str(address))
    return text


def _unmapped(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_public(address: Address) -> bool:
    return (
        address.is_global
        and not any(address in network for network in _NEVER)
        and not address.is_multicast
        and not address.is_reserved
        and address not in _METADATA
    )


def _is_private(address: Address) -> bool:
    return address not in _METADATA and any(address in network for network in _PRIVATE)
