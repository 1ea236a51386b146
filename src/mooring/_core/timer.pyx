"""A timing wheel for many coarse deadlines (handshake, idle, close, stalled write).

Every connection has one timer, armed and cancelled far more often than it fires, so both must cost a few
instructions: a timer is linked into the bucket of its due tick, whatever the number of timers. A deadline further
away than one round of the wheel waits in its bucket and is passed over until its tick has really come. Deadlines
are late by at most one tick (32 ms) and never early. Time is CLOCK_MONOTONIC, handed in by the caller.
"""

from libc.stdint cimport uint64_t


cdef class Wheel:

    def __cinit__(self) -> None:
        cdef int i
        for i in range(BUCKETS):
            self.buckets[i].next = &self.buckets[i]
            self.buckets[i].previous = &self.buckets[i]

    cdef void start(self, uint64_t now_ms) noexcept:
        self.tick = now_ms // TICK_MS

    cdef void arm(self, Timer* timer, uint64_t due_ms) noexcept:
        cdef Timer* head
        self.cancel(timer)
        timer.due = due_ms // TICK_MS + 1
        if timer.due <= self.tick:
            timer.due = self.tick + 1
        head = &self.buckets[timer.due % BUCKETS]
        if timer.due < self.soonest:
            self.soonest = timer.due
        timer.previous = head.previous
        timer.next = head
        head.previous.next = timer
        head.previous = timer
        self.armed += 1

    cdef void cancel(self, Timer* timer) noexcept:
        if timer.next == NULL:
            return
        timer.previous.next = timer.next
        timer.next.previous = timer.previous
        timer.next = NULL
        timer.previous = NULL
        self.armed -= 1

    cdef Timer* pop(self, uint64_t now_ms) noexcept:
        cdef uint64_t now = now_ms // TICK_MS
        cdef Timer* head
        cdef Timer* timer
        if self.armed == 0 or now > self.tick + BUCKETS:
            # nothing to find, or asleep for longer than a round: every bucket is looked at once below
            if self.armed == 0:
                self.tick = now
                return NULL
            self.tick = now - BUCKETS
        while self.tick < now:
            head = &self.buckets[(self.tick + 1) % BUCKETS]
            timer = head.next
            while timer != head:
                if timer.due <= now:
                    self.cancel(timer)
                    return timer
                timer = timer.next
            self.tick += 1
        return NULL

    cdef int wait_ms(self, uint64_t now_ms) noexcept:
        cdef uint64_t ahead
        cdef Timer* head
        if self.armed and self.soonest > self.tick:
            ahead = self.soonest * TICK_MS
            return <int> (ahead - now_ms) if ahead > now_ms else 0
        if self.armed == 0:
            return -1
        ahead = 1
        head = &self.buckets[(self.tick + 1) % BUCKETS]
        while head.next == head and ahead < BUCKETS:
            ahead += 1
            head = &self.buckets[(self.tick + ahead) % BUCKETS]
        self.soonest = self.tick + ahead
        ahead = self.soonest * TICK_MS
        return <int> (ahead - now_ms) if ahead > now_ms else 0
