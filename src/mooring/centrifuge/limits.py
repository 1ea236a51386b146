"""What one client may take: sizes and counts, looked at before anything is made of what it has sent; and times."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes."""

    #: A frame of the client, and a message within it.
    frame: int = 65_536
    #: Commands in one frame. A client's library sends `connect` and all its subscriptions in the first one.
    commands: int = 1_024
    #: How deep JSON may be nested that is passed on: a reader's own limit can be as low as a thousand.
    depth: int = 128
    #: The name of a channel.
    channel: int = 255
    #: Channels that a client is subscribed to.
    channels: int = 128
    #: Commands that have not been answered. From here on the session is `holding`: nothing more should be read.
    unanswered: int = 64
    #: The same for a host that reads on, or for a frame with that many: the connection is ended.
    unanswered_most: int = 2_048
    #: Publications that wait, per subscription, until the engine has said what came before them.
    held_publications: int = 4_096


DEFAULT = Limits()


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take, in s."""

    #: From one ping of the server to the next. Whole seconds, as the client is told; 0: none.
    ping_interval: int = 25
    #: Whether a ping is to be answered, and until when.
    pong: bool = True
    pong_timeout: float = 8
    #: Until when `connect` must have come.
    connect_timeout: float = 10
    #: What a client has beyond the end of its time, as it asks for more only then.
    grace: float = 25


DEFAULT_TIMING = Timing()
