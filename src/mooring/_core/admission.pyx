"""Who is let in: how many connections an address may have, and how many of them may not have shown what they want.

An open WebSocket costs an office behind one address one connection per person, so that limit is wide. A connection
whose first request was not answered yet is there for moments; many of those from one address are somebody who opens
them and says nothing, and their limit is narrow. Clients on this machine are not counted: they are a proxy's, or tests.
"""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp

cdef const char* LOOPBACK = b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1"
cdef const char* MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"        # an IPv4 client of a socket for both


cdef bytes address_key(int family, const uint8_t* address):
    """Whose connections are counted together: one IPv4 address, or an IPv6 network of 64 bits, which is what one
    customer of a provider has. None for this machine itself."""
    if family == 4 and address[0] != 127:
        return address[:4]
    if family == 6:
        if memcmp(address, MAPPED, 12) == 0:
            return address_key(4, address + 12)
        if memcmp(address, LOOPBACK, 16):
            return address[:8]
    return None


cdef int _less(dict counts, bytes key) except -1:
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]
    return 0


cdef class Admission:
    """limit: connections of one address; fresh_limit: those of them without an answered request; 0: any number."""

    def __cinit__(self, limit: int, fresh_limit: int) -> None:
        self.limit = limit
        self.fresh_limit = fresh_limit
        self.addresses = {}
        self.fresh = {}

    cdef Welcome welcome(self, int family, const uint8_t* address) except *:
        key = address_key(family, address) if self.limit or self.fresh_limit else None
        if key is None:
            return WELCOME
        if self.limit and self.addresses.get(key, 0) >= self.limit:
            return CROWDED
        return HASTY if self.fresh_limit and self.fresh.get(key, 0) >= self.fresh_limit else WELCOME

    cdef bint enter(self, int family, const uint8_t* address) except -1:
        key = address_key(family, address) if self.limit or self.fresh_limit else None
        if key is None:
            return False
        self.addresses[key] = self.addresses.get(key, 0) + 1
        self.fresh[key] = self.fresh.get(key, 0) + 1
        return True

    cdef int settle(self, int family, const uint8_t* address) except -1:
        return _less(self.fresh, address_key(family, address))

    cdef int release(self, int family, const uint8_t* address) except -1:
        return _less(self.addresses, address_key(family, address))
