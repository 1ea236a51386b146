"""The contract of the seam: what both ends may rely on, whichever implementation it is.

Up (gateway -> worker), through the worker end that `Relay.attach` was given:
    events arrive in the order they were handed over; each has a ticket, which comes back exactly once, behind all
    commands that its handler gave; a worker end that is lost gives its tickets back as unfinished.

Down (worker -> gateway), through the gateway end:
    commands are applied in the order they were given, whole or not at all; a command for a connection that is gone has
    no effect; `call` waits for an answer and is refused with StateError when none can come.

What a relay asks of its gateway beside that, and an inlet of its worker, is written in mooring._core.contract.
"""
