"""What a gateway counts of its sockets. Written by tools/counters.py: change mooring/counters.py."""

from libc.stdint cimport uint64_t


cdef struct Counters:
    uint64_t connections_accepted
    uint64_t connections_refused
    uint64_t connections_refused_by_address
    uint64_t connections_refused_unfinished
    uint64_t connections_evicted
    uint64_t connections_closed
    uint64_t listener_left_to_others
    uint64_t accept_pauses
    uint64_t rate_pauses
    uint64_t deferred
    uint64_t websockets_opened
    uint64_t requests
    uint64_t requests_held
    uint64_t messages_received
    uint64_t messages_sent
    uint64_t failed
    uint64_t slow_consumers
    uint64_t ended_for_memory
    uint64_t timed_out
    uint64_t faults
    uint64_t pings_sent
    uint64_t unmasked_control_frames
    uint64_t proxy_headers_refused
    uint64_t bytes_received
    uint64_t bytes_sent
    uint64_t tls_failed
    uint64_t files_sent
    uint64_t files_refused
    uint64_t files_broken
