"""What a worker does for a gateway that does not take its commands. Included by `inlet.pyx`.

A worker does not fill its memory for a gateway that is behind: from a quarter of `output_limit` on it waits for that,
as long as the gateway takes something, and so what publishes too much is slowed down. But whoever waits keeps the
clients of all other gateways waiting, too, and a gateway that stands still (stopped, stuck in the kernel, swapped out)
takes nothing for as long as it pleases. So nobody waits for it for longer than PATIENCE looks, and for LONGEST when the
queue is at its limit; looks and not a time, because a machine that stood still with all its processes blames nobody.
Then its clients are what clients are that do not read: what they cannot be sent ends them, by name. Instead of a
command for a connection the gateway is told, once, that this one misses something, and instead of a publish, once, that
all do who are subscribed; it closes them when it goes on. So nothing is missed silently, in the order of all other
commands, and the queue is bounded.

When it takes something again, everything is as before. If it never does, the supervisor ends it (watchdog.py).
"""

cdef double LOOK = 0.05          # seconds
cdef enum:
    PATIENCE = 5                 # looks
    LONGEST = 20
    MOST_NAMES = 10000           # topics of which it is told one by one


cdef int _wait_for_room(ChannelOutlet self) except -1:
    """Until a quarter of the limit is free for more, or the gateway was seen to stand still."""
    cdef Channel channel = self.channel
    cdef size_t limit = self.channel.inlet.output_limit
    cdef bint room = False
    self.channel.inlet.send_all()
    while channel.fd >= 0 and buffer_size(&channel.output) > limit // 4:
        channel.send_some()
        if channel.sent != self.taken:
            self.taken = channel.sent
            self.looks = 0
            room = False
            continue
        if self.looks >= <uint32_t> (PATIENCE if buffer_size(&channel.output) <= limit else LONGEST):
            return 0
        if room:
            time.sleep(LOOK / 10)        # the kernel has room and yet takes nothing: it has no memory
        room = self.channel.inlet.waiting.writable(channel.fd, LOOK)
        self.looks += not room
    return 0


cdef int _miss(ChannelOutlet self, const Record* command, const uint8_t* payload) except -1:
    """Instead of a command that there is no room for."""
    cdef object key
    cdef Record record
    cdef bytes name = b""
    cdef int what = MISSED_CLIENT
    if self.missed is None:
        self.missed = set()
        self.channel.inlet.worker.on_standstill(self.gateway, False)
    if command.kind == CM_PUBLISH:
        self.stamp = command.fd
    if command.kind == CM_PUBLISH or command.kind == CM_DISCONNECT_USER:
        if self.missed_names >= MOST_NAMES:
            return 0
        key = name = (PyBytes_FromStringAndSize(<const char*> payload, command.arg) if command.kind == CM_PUBLISH
                      else _USER + PyBytes_FromStringAndSize(<const char*> payload, command.extra))
        what = MISSED_TOPIC
    else:
        key = command.fd
    if key in self.missed:
        return 0
    if what == MISSED_TOPIC:
        self.missed_names += 1
        if self.missed_names == MOST_NAMES:
            what, name = MISSED_TOPICS, b""
    record = make_record(CM_MISSED, command.fd, <uint32_t> len(name))
    record.opcode = what
    self.channel.put(&record, name)
    self.missed.add(key)
    return 0


cdef int _takes_again(ChannelOutlet self) except -1:
    cdef Record record = make_record(CM_MISSED, self.stamp, 0)
    record.opcode = MISSED_PUBLISHES
    self.missed = None
    self.missed_names = 0
    if self.stamp:
        self.stamp = 0
        self.channel.put(&record, NULL)
    self.channel.inlet.worker.on_standstill(self.gateway, True)
    return 0
