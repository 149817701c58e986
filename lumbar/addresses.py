"""Network addresses, as far as they tell one client from another."""

from ipaddress import IPv6Address, ip_address

IPV6_SITE = 64  # bits of an address; whoever has one has all of its network


def network_of(address: str) -> str:
    """The part of an address that tells one place from another: of IPv6, its first 64 bits."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped or int(parsed) >> (128 - IPV6_SITE))
    return address
