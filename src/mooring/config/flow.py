"""The section `flow` of the settings: what may wait in memory, how much may come, and for how long."""

from dataclasses import dataclass

from mooring.errors import ConfigError

from .option import GIB, HOUR, Section, option


@dataclass(frozen=True)
class Flow(Section):
    """Backpressure: what may wait in memory, and for how long."""

    write_limit: int = option(
        1 << 20, "Most bytes waiting for one client to read; more close it with 1008.", "bytes", bounds=(4096, GIB)
    )
    write_high_water: int = option(
        65536,
        "While more bytes than this wait for a client, it has to read at `write_min_rate`; `drain` waits for less.",
        "bytes",
        bounds=(1024, GIB),
    )
    write_timeout: float = option(
        10.0,
        "How often `write_min_rate` is looked at; who has taken nothing for so long is ended in any case.",
        "s",
        bounds=(0.1, HOUR),
    )
    write_min_rate: int = option(
        500,
        "How fast a client has to read at least, over each `write_timeout` in which more than `write_high_water`, or "
        "some of an answer, waits for it; else it is ended, a WebSocket with 1008. What its machine has acknowledged "
        "counts. 0: any, but not nothing.",
        "bytes/s",
        bounds=(0, GIB),
    )
    buffer_limit: int = option(
        0,
        "Most bytes that may be kept for all clients of one gateway together: what waits to be read by them, and the "
        "beginnings of messages and bodies. More end those for whom most is kept: 1008 for who does not read, 1013 or "
        "503 for who sends. 0: the gateways share a quarter of the memory of the machine or its control group.",
        "bytes",
        bounds=(0, 1 << 40),
    )
    close_records: str = option(
        "off",
        "Keep a record of each connection that ends: who ended it and why, how long it was, what it has sent. `on`: "
        "for the handler of `ended` and for `mooring tail`. `log`: also as a line in the log, whatever `log_level` is; "
        "the logger is `mooring.closed`.",
        choices=("off", "on", "log"),
    )
    in_flight_messages: int = option(
        16,
        "Messages of one connection handed to its worker and not yet finished; then reading stops.",
        "messages",
        bounds=(1, 4096),
    )
    in_flight_bytes: int = option(
        262144, "The same in bytes; one message is always let through.", "bytes", bounds=(1, GIB)
    )
    worker_messages: int = option(
        1024,
        "Messages, requests, opens, ... that one worker was handed by one gateway and has not finished. Beyond it no "
        "message or request is read. As many may wait while there is no worker.",
        "messages",
        bounds=(1, 4096),
    )
    worker_bytes: int = option(
        4 << 20, "The same in bytes; one message is always let through.", "bytes", bounds=(4096, GIB)
    )
    gateway_bytes: int = option(
        64 << 20,
        "Most bytes that wait in one worker to be taken by one gateway. From a quarter of it on the worker waits for a "
        "gateway that is behind. For one that stands still it does not wait for long: clients of that gateway who miss "
        "something are closed with 1013.",
        "bytes",
        bounds=(65536, GIB),
    )
    redeliver: bool = option(
        False,
        "Handle a message again whose worker ended while its handler ran; `frame.attempt` counts. After 3 workers it "
        "is quarantined: dropped, and told to the handler of `quarantined`. Off: it is not handled again, and told to "
        "the handler of `uncertain`. In `process` mode.",
    )
    max_connections_per_address: int = option(
        256,
        "Connections of one gateway from one address, of IPv6 from one network of 64 bits; more get 429. Those from "
        "this machine are not counted, nor any if `trusted_proxies` is set. 0 means any number.",
        "connections",
        bounds=(0, 1 << 22),
    )
    max_unfinished_per_address: int = option(
        32,
        "Those of them of which no request is answered yet, a handshake included; more get 429. 0 means any number.",
        "connections",
        bounds=(0, 1 << 22),
    )
    max_connection_rate: int = option(
        0,
        "New connections a second of one listener and gateway; others wait in the backlog. 0 means any number.",
        "connections/s",
        bounds=(0, 1 << 20),
    )
    message_rate: float = option(
        0.0,
        "Messages a second from one connection; it is read no faster. 0 means any number.",
        "messages/s",
        bounds=(0, 1e6),
    )
    message_burst: int = option(
        200, "Messages it may send at once, after a pause, with `message_rate`.", "messages", bounds=(1, 1 << 20)
    )
    max_connections: int = option(
        0,
        "Connections of one gateway; more are left to another one that has room, and when all are full get 503. 0 "
        "means 90 % of the file descriptors that are left when its own and 64 more are kept back. Above 80 % of it, "
        "connections that wait for a next request are ended.",
        "connections",
        bounds=(0, 1 << 22),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.write_high_water > self.write_limit:
            raise ConfigError(
                f"write_high_water={self.write_high_water}: must not be above write_limit={self.write_limit}"
            )
