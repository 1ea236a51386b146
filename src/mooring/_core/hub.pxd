"""Topics: who is subscribed, and the fan-out of one frame. Theory in hub.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from mooring._core.websocket cimport WebSockets
from mooring._core.registry cimport Connection


cdef struct Subscriber:
    # place: the index in the connection's list of subscriptions that says it is in this topic
    Connection* connection
    uint16_t place


cdef class Topic:
    cdef bytes name
    cdef Subscriber* subscribers
    cdef uint32_t count
    cdef uint32_t capacity
    cdef bint followed               # its end is told


cdef class Hub:
    cdef WebSockets connections
    cdef dict topics                 # name -> Topic; a topic lives while it has subscribers
    cdef int limit
    cdef public object on_left       # called with the name of a followed topic that nobody hears any more
    cdef readonly uint32_t users     # topics that are users

    # 1 when it is a member now, 0 when it may not be in one topic more
    cdef int subscribe(self, Connection* c, bytes name) except -1
    cdef int bind(self, Connection* c, bytes user) except -1
    cdef bytes user_of(self, Connection* c)
    cdef int _join(self, Connection* c, bytes name, int limit) except -1
    cdef bint is_in(self, Connection* c, bytes name) except -1
    cdef int unsubscribe(self, Connection* c, bytes name) except -1
    cdef int unsubscribe_all(self, Connection* c) except -1
    # how many connections took the frame
    cdef int _deliver_compressed(self, Connection* c, int opcode, bytes payload) except -1
    cdef list _places(self, Topic topic, const uint8_t* fds, uint32_t count)
    # `excluded`: fds that are left out, as bytes
    cdef int publish(self, bytes name, int opcode, const uint8_t* data, size_t size, const uint8_t* excluded,
                     uint32_t excluded_count) except -1
    cdef int _remove(self, Connection* c, int place) except -1
