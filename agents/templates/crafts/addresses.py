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
from typing import Final

from yarl import URL

from agents.templates.crafts.refusals import UnsafeAddressError

MAX_URL_CHARS: Final = 2_048
_LOWEST_PORT: Final = 1_024
_WEB_PORTS: Final = (80, 443)
# Azure's wire server answers on a public address.
_METADATA: Final = frozenset({ipaddress.ip_address("168.63.129.16")})
_TRANSLATED: Final = tuple(
    ipaddress.IPv6Network(network)
    for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)

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
    return url


def check_address(text: str, *, allow_loopback: bool = False) -> str:
    """Return ``text``, an IP address, if it is public.

    Raises:
        UnsafeAddressError: it is ours, private, reserved, multicast, or hides such a one.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError as error:
        raise UnsafeAddressError("not an IP address", address=text[:64]) from error
    plain = _unmapped(address)
    if not (_is_public(plain) or (allow_loopback and plain.is_loopback)):
        raise UnsafeAddressError("the address is not public", address=str(address))
    return text


def _unmapped(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and any(
        address in network for network in _TRANSLATED
    ):
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and address not in _METADATA
    )
