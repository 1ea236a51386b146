"""What is allowed to the connections of one listener: bytes, times, rates.

It is filled once, from the options of registry.pyx, and shared by all connections of the listener.
"""

from libc.stdint cimport uint64_t


cdef int fill_profile(Profile* profile, int index, dict options) except -1:
    profile.index = index
    profile.frames.message = options["max_message"]
    profile.frames.fragments = options["max_fragments"]
    profile.frames.unmasked = options.get("unmasked", False)
    profile.write_limit = options["write_limit"]
    profile.high_water = options["high_water"]
    profile.request_ms = <uint64_t> (options["request_timeout"] * 1000)
    profile.body_rate = options.get("body_rate", 500)
    profile.body_grace_ms = <uint64_t> (options.get("body_grace", 5) * 1000)
    profile.idle_ms = <uint64_t> (options["idle_timeout"] * 1000)
    profile.write_ms = <uint64_t> (options["write_timeout"] * 1000)
    profile.write_rate = options.get("write_rate", 500)
    profile.tls_ms = <uint64_t> (options.get("tls_timeout", 5) * 1000)
    profile.close_ms = <uint64_t> (options["close_timeout"] * 1000)
    profile.ping_ms = <uint64_t> (options.get("ping_interval", 0) * 1000)
    profile.pong_ms = <uint64_t> (options.get("pong_timeout", 10) * 1000)
    profile.heartbeat_ms = <uint64_t> (options.get("heartbeat_idle_time", 0) * 1000)
    profile.rate = options.get("message_rate", 0)
    profile.burst = options.get("message_burst", 1)
    profile.control_limit = options.get("control_limit", 65535)
    profile.open_ping = options.get("open_ping", False)
    profile.open_pong = options.get("open_pong", False)
    profile.open_close = options.get("open_close", False)
    profile.preface = options.get("preface") is not None
    profile.records = options.get("records", False)
    profile.preface_ms = <uint64_t> (options.get("preface_timeout", 5) * 1000)
    return 0
