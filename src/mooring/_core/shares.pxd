"""An even share of the connections for a worker that is new. Theory in shares.pyx."""

from mooring._core.websocket cimport WebSockets
from mooring._core.worker_end cimport WorkerEnd


cdef int give_share(WebSockets connections, list worker_ends, WorkerEnd newcomer, bint by_key) except -1
cdef bint has_more(list worker_ends, WorkerEnd worker_end) except -1
