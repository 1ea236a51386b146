"""TLS on a gateway's connections. Theory in secure.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from mooring._core.registry cimport Connection
from mooring._core.transport cimport Transport


cdef class Tls:
    cdef object session              # ssl.SSLObject
    cdef object incoming, outgoing   # ssl.MemoryBIO: what came from the peer, what is to go to it
    cdef bint shaking                # the handshake is not over
    cdef bint met                    # its first octet was that of a TLS record
    cdef bint unread                 # decrypted bytes, or bytes to decrypt, wait until the connection reads again
    cdef bint queued                 # in the list of those to go on reading
    cdef bint closed                 # the peer has said that it sends no more
    cdef bytes ahead                 # what was read of a next request while an answer goes out: nothing, or one octet
    # ciphertext that the kernel has not taken: unsent[at:], for the first `covers` bytes of the out-queue
    cdef bytes unsent
    cdef size_t at
    cdef size_t covers

    cdef int collect(self) except -1
    cdef bint drained(self) except -1


cdef class SecureTransport(Transport):
    cdef list contexts               # by the index of the listener: an ssl.SSLContext, or None
    cdef dict tls                    # fd -> Tls
    cdef list reading                # fds to go on reading
    cdef public object on_tls_failed                     # called with (address, why)

    cdef int _greet(self, Connection* c, uint8_t* buffer, size_t got) except -1
    cdef int _read(self, Connection* c) except -1
    cdef int _listen(self, Connection* c, Tls tls) except -1
    cdef int _push(self, Connection* c, Tls tls) except -1
    cdef size_t _encrypt(self, Connection* c, Tls tls) except? 0
    cdef int _say_goodbye(self, Tls tls, int socket) except -1
    cdef int _broken(self, Connection* c, Tls tls, str why) except -1
    cdef int _refuse_plaintext(self, Connection* c) except -1
    cdef int _drop_tls(self, Connection* c) except -1
    cdef int _report(self, Connection* c, str why) except -1
    cdef int on_tls_late(self, Connection* c) except -1
