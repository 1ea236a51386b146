"""An even share of the connections for a worker that is new. Theory in shares.pyx."""

from mooring._core.websocket cimport WebSockets
from mooring._core.port cimport Port


cdef int give_share(WebSockets connections, list ports, Port newcomer, bint by_key) except -1
cdef bint has_more(list ports, Port port) except -1
