"""What is allowed to the connections of one listener. Theory in profile.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from mooring._core.ws cimport FrameLimits


cdef struct Profile:
    uint16_t index
    FrameLimits frames
    size_t write_limit
    size_t high_water
    uint64_t request_ms, idle_ms, write_ms, close_ms, ping_ms, pong_ms, heartbeat_ms
    uint64_t write_rate                              # least bytes per second that a peer takes of an answer, 0: any
    uint64_t body_rate, body_grace_ms                # least bytes per second of a body, 0: any; from when on
    double rate, burst               # messages a second, and at once; rate 0: any number
    uint32_t control_limit           # pings and pongs of one connection in 10 s
    bint open_ping, open_pong, open_close            # control frames are messages for the application, too
    bint preface                     # a header of a proxy comes first, and has so long to arrive
    uint64_t preface_ms
    uint64_t tls_ms                  # for a handshake
    bint records                     # a record is kept of the end of each connection, see closed.pyx


cdef int fill_profile(Profile* profile, int index, dict options) except -1
