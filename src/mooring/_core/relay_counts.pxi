"""What a gateway tells of its ledgers. Included by `relay.pyx`."""

cdef int _in_flight(Relay self) except -1:
    """Counted in the ledgers themselves."""
    cdef Port port
    cdef uint32_t i
    count = sum(1 for item in self.limbo if is_counted(item[1]))
    for port in [p for p in self.ports if p is not None]:
        count += sum(1 for item in port.backlog if is_counted(item[1]))
        for i in range(port.ticket_count):
            count += port.tickets[i].used and is_counted(port.tickets[i].record.kind)
    return count + _works_of_all(self)


cdef uint64_t _oldest(Relay self) except? 0:
    cdef Port port
    cdef uint32_t i
    cdef uint64_t since = self.connections.reactor.now
    for port in [p for p in self.ports if p is not None]:
        for i in range(port.ticket_count):
            if port.tickets[i].used and port.tickets[i].since < since:
                since = port.tickets[i].since
    return self.connections.reactor.now - since


cdef list _take_overdue(Relay self, uint64_t limit):
    cdef Port port
    cdef Ticket* ticket
    cdef uint32_t i
    cdef uint64_t now = self.connections.reactor.now
    found = []
    for port in [p for p in self.ports if p is not None]:
        for i in range(port.ticket_count):
            ticket = &port.tickets[i]
            if ticket.used and not ticket.told and now - ticket.since > limit:
                ticket.told = True
                self.overdue += 1
                found.append((kind_of(&ticket.record), ticket.record.fd, now - ticket.since, port))
    return found


cdef dict _stats(Relay self):
    return {
        "accepted": self.accepted,
        "finished": self.finished,
        "uncertain": self.uncertain,
        "redelivered": self.redelivered,
        "repeated": self.repeated,
        "dropped": sum(self.dropped.values()),
        "dropped_reasons": dict(self.dropped),
        "in_flight": self.in_flight(),
        "spawned": _works_of_all(self),
        "oldest_in_flight": self.oldest() / 1000,
        "overdue": self.overdue,
        "reports_lost": self.reports_lost,
        "bad_records": self.bad_records,
        "ended_by_standstill": self.missed,
        "events_waiting": self.limbo.count + sum([(<Port> p).backlog.count for p in self.ports if p is not None]),
        "bytes_waiting": self.kept,
        "published_out_of_order": 0 if self.publish_order is None else self.publish_order.out_of_order,
        "workers": [
            {"worker": p.worker, "generation": p.generation, "pid": p.pid, "connections": p.bound,
             "in_flight": p.in_flight, "spawned": p.works, "retiring": p.retiring}
            for p in self.ports if p is not None
        ],
    }
