"""What a gateway knows of a connection at its end, for its close record.

Nothing is counted for a record alone: counts, times and the round trip are those that `get_client_info` shows, and the
cause was noted when the end was decided (`blame`, `_decide` in registry.pyx), where it was known best. So a listener
without records pays nothing for them, and one with records only when a connection ends.

The look is taken first of all when a connection is gone: what follows takes it out of its topics, its user's among
them, and its worker.
"""

from libc.stdint cimport uint64_t

from mooring._core.hub cimport Hub
from mooring._core.registry cimport UPGRADED, Connection, Registry, path_of
from mooring._core.table cimport address_text
from mooring._core.wire cimport WANTS_ENDED

from mooring._core.wire import RECORD_MARK as _RECORD_MARK


cdef bytes with_record(Registry registry, Hub hub, Connection* c, int code, bytes reason, int wants):
    """Whatever fails here: that the close itself is told matters more."""
    try:
        record = registry.on_ended(_last_look(registry, hub, c, code, reason), wants & WANTS_ENDED != 0)
    except Exception:
        registry.reactor._error("keeping a close record")
        return reason
    return reason + _RECORD_MARK + record if record else reason


cdef tuple _last_look(Registry registry, Hub hub, Connection* c, int code, bytes reason):
    """In the order of mooring.gateway.closed.LastLook."""
    cdef uint64_t age = registry.reactor.now - c.entry.connected
    return (
        c.fd, c.profile.index, c.why, c.stage, code, reason, c.flags & UPGRADED != 0, c.tls_version,
        address_text(c.entry.family, c.entry.address), c.entry.remote_port,
        path_of(c)[:c.path_size], hub.user_of(c), c.entry.worker,
        registry.table.header.epoch + c.entry.connected / 1000.0,
        age / 1000.0,
        c.requests, c.entry.messages_received, c.entry.messages_sent, c.entry.bytes_received, c.entry.bytes_sent,
        c.entry.round_trip, c.least_round_trip, c.most_queued,
    )
