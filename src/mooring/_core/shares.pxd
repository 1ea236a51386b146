"""An even share of the connections for a worker that is new. Theory in shares.pyx."""

from mooring._core.connection cimport Connections
from mooring._core.port cimport Port


cdef int give_share(Connections connections, list ports, Port newcomer, bint by_key) except -1
cdef bint has_more(list ports, Port port) except -1
