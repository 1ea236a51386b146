"""Redis and Valkey as an engine: what carries topics with a history between nodes, and keeps it.

Theory
    A node has two connections to its server, one that asks and one that listens (connections.py). They live and die
    together: what the one has published the other hears, or both are given up.

    Publications go in batches, and each is one script (append.lua): it numbers, keeps and tells, all or nothing. The
    node numbers them itself, without a hole, and the server remembers the last number. So a batch whose answer was
    lost is sent again as it is, and a server that has lost its end says so: the node sends what it still has
    (appender.py).

    The server's copy may go back in time: from a snapshot, or because a replica is promoted that had not everything.
    What it has is then a beginning of what there was. It has another generation, `master_replid`, and the first to
    publish in a topic gives its line another epoch and writes down how far the old one went. See history.py of what
    positions mean.

    Topics share channels, `partitions` in number: a node hears few channels, however many topics it follows, and each
    publication counts its channel on. A node that hears counters jump, or finds at a heartbeat that the server's
    counter is ahead, has missed something: it asks for what is missing in each topic that it follows there
    (follower.py).
"""
