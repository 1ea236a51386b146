"""What a gateway tells of its ledgers. Included by `relay.pyx`."""

cdef dict _stats(Relay self):
    return {
        "accepted": self.books.accepted,
        "finished": self.books.finished,
        "uncertain": self.books.uncertain,
        "redelivered": self.books.redelivered,
        "repeated": self.books.repeated,
        "dropped": sum(self.books.dropped.values()),
        "dropped_reasons": dict(self.books.dropped),
        "in_flight": self.books.in_flight,
        "spawned": self.books.spawned,
        "oldest_in_flight": self.oldest() / 1000,
        "overdue": self.books.overdue,
        "reports_lost": self.books.reports_lost,
        "bad_records": self.bad_records,
        "ended_by_standstill": self.missed,
        "events_waiting": self.books.waiting,
        "bytes_waiting": self.books.kept,
        "published_out_of_order": 0 if self.publish_order is None else self.publish_order.out_of_order,
        "workers": [
            {"worker": p.worker, "generation": p.generation, "pid": p.pid, "connections": p.bound,
             "in_flight": p.ledger.in_flight, "spawned": p.ledger.works, "retiring": p.retiring}
            for p in self.ports if p is not None
        ],
    }
