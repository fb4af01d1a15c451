"""Where an address is."""

from __future__ import annotations

import ipaddress


def is_loopback_host(host: str) -> bool:
    """Whether only this machine is there, so that nobody is between. IPv6 without brackets; names
    are not looked up.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
