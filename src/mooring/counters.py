"""The counters of a server: one table of what each process counts, and what becomes of it.

A row says what a number is, where it is counted, and how it adds up over the processes that count it. Everything else
is made from the rows: the memory of the compiled counters (`_core/counters.pxd`, written by tools/counters.py), what a
process begins with (`zeros`), the sums of `Server.stats()` (`total`), the page docs/counters.md, and the names and
texts of `/metrics`. So a new counter is one row here and the line that counts.

A name is for ever: dashboards and alerts have it. One that has to change keeps its old row for a release.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, Flag, auto
from typing import Any, NamedTuple


class Kind(Enum):
    """What can be done with a number."""

    COUNTER = "counter"  # it only grows, from 0 when its process starts: look at rates
    GAUGE = "gauge"  # it goes up and down: look at the value
    HISTOGRAM = "histogram"  # how many were at most so long, for each bound: look at quantiles


class Adds(Enum):
    """What one number for several processes is."""

    SUM = "sum"
    MAX = "max"  # they count the same thing, or the worst one matters
    EACH = "each"  # none: it belongs to one process


class Part(Flag):
    """What counts it: a part of a process, which may have several."""

    CONNECTIONS = auto()  # of a gateway: its sockets, compiled
    RELAY = auto()  # of a gateway: its ledger of what workers were given
    GATEWAY = auto()  # of a gateway: everything else
    WORKER = auto()  # task workers and processes of the application's own, too
    DISPATCHER = auto()
    ENGINE = auto()
    TREE = auto()  # the supervisor, or what stands for it in one process
    PROCESS = auto()  # each process, whatever is in it


ANY_GATEWAY = Part.CONNECTIONS | Part.RELAY | Part.GATEWAY


class Row(NamedTuple):
    """One counter, of whatever kind."""

    name: str
    kind: Kind
    part: Part
    text: str
    unit: str = ""
    adds: Adds = Adds.SUM
    label: str = ""  # it is several numbers, one for each value of this

    @property
    def metric(self) -> str:
        """Its name for Prometheus, without the `_total` that every counter gets there."""
        name = f"mooring_{self.name.removesuffix('_reasons')}"
        return name if not self.unit or self.unit in self.name else f"{name}_{self.unit}"


def _rows(kind: Kind, part: Part, *texts: str, unit: str = "", adds: Adds = Adds.SUM, label: str = "") -> Iterator[Row]:
    """Each text begins with the name and a colon."""
    for text in texts:
        name, _, told = text.partition(": ")
        yield Row(name, kind, part, told, unit, adds, label)


C, G, H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

TABLE: tuple[Row, ...] = (
    # ---- connections
    *_rows(
        G,
        Part.CONNECTIONS,
        "connections: Clients that are connected, whatever they speak.",
        "websockets: Open WebSockets among them.",
        "connections_paused: Clients that are not read at present, because too much of theirs waits to be handled or "
        "the application has paused them.",
        "connections_behind: Clients whose output is above the high-water mark: they read more slowly than is sent.",
        "files_open: Files that are being sent.",
    ),
    *_rows(
        G,
        Part.CONNECTIONS,
        "bytes_queued: Output that clients have not taken yet.",
        "bytes_gathered: Beginnings of messages and bodies, kept until the rest comes.",
        unit="bytes",
    ),
    *_rows(
        C,
        Part.CONNECTIONS,
        "connections_accepted: Clients that were accepted.",
        "connections_refused: Clients that were refused, or closed at once, for whatever reason.",
        "connections_refused_by_address: Those of them whose address had `max_connections_per_address` already.",
        "connections_refused_unfinished: Those of them whose address had `max_unfinished_per_address` already.",
        "connections_evicted: Idle clients that were closed because the server was nearly full.",
        "connections_closed: Clients whose connection has ended.",
        "listener_left_to_others: Times that a full gateway left the listener to others.",
        "accept_pauses: Times that nobody was accepted for a moment, for want of descriptors.",
        "rate_pauses: Messages that had to wait because their client had sent too many (`message_rate`).",
        "deferred: Times that one client had sent more than its share of a turn.",
        "websockets_opened: WebSockets that were opened.",
        "requests: HTTP requests that were read, those that open WebSockets included.",
        "requests_held: Requests that had to wait for a place at a worker.",
        "messages_received: WebSocket messages that were received.",
        "messages_sent: WebSocket messages that were queued for clients.",
        "failed: Clients that were closed for a fault of theirs: a broken frame, a message too large, ...",
        "slow_consumers: Clients that were closed for reading too slowly.",
        "ended_for_memory: Clients that were closed because all together kept too much memory.",
        "timed_out: Clients that were closed by a time limit.",
        "faults: Clients that were closed for an error of the server itself.",
        "pings_sent: Pings that were sent to silent clients.",
        "unmasked_control_frames: Pongs and close frames without a mask that were taken nevertheless.",
        "proxy_headers_refused: Clients refused for their header of the PROXY protocol, or for having none.",
    ),
    *_rows(
        C,
        Part.CONNECTIONS,
        "bytes_received: Bytes that clients have sent.",
        "bytes_sent: Bytes that were sent to clients.",
        unit="bytes",
    ),
    # these stand with what they count, not with the others
    *_rows(
        C,
        Part.CONNECTIONS,
        "tls_failed: TLS handshakes that failed, and streams that broke.",
        "files_sent: Files that were sent to their end.",
        "files_refused: Files that were left to the worker to send.",
        "files_broken: Files that became shorter, or could not be read, while they were sent.",
    ),
    # ---- what workers were given
    *_rows(
        C,
        Part.RELAY,
        "accepted: Messages, requests and work of connections that were accepted: the sum of finished, uncertain, "
        "dropped and in_flight.",
        "finished: Those whose handler has ended.",
        "uncertain: Those whose worker ended while the handler ran: whether they had an effect, nobody knows.",
        "redelivered: Those that went to another worker, because theirs ended before the handler had started.",
        "repeated: Those that were handled again, the handler having started before (`redeliver`).",
        "dropped: Those that were dropped, for whatever reason.",
        "overdue: Handlers that had not ended after `overdue_after`.",
        "reports_lost: Reports of uncertain events that no worker could be told of.",
        "ended_by_standstill: Clients that were closed, having missed something while their gateway stood still.",
        "published_out_of_order: Publishes that could not wait for those of other gateways.",
    ),
    *_rows(C, Part.RELAY, "dropped_reasons: Messages, requests and work that were dropped, by reason.", label="reason"),
    *_rows(
        G,
        Part.RELAY,
        "in_flight: Messages, requests and work that were accepted and are not finished.",
        "spawned: Work that connections own (`spawn`), among those in flight.",
        "events_waiting: Events that wait for a place at a worker.",
    ),
    *_rows(G, Part.RELAY, "bytes_waiting: Events that are with workers or wait for one.", unit="bytes"),
    *_rows(
        G,
        Part.RELAY,
        "oldest_in_flight: For how long the oldest event has been with its worker.",
        unit="seconds",
        adds=Adds.MAX,
    ),
    # ---- what gateways refuse
    *_rows(
        C,
        Part.GATEWAY,
        "requests_refused: Requests that broke a rule or a limit.",
        "hosts_refused: Requests for a host that is not in `allowed_hosts`.",
        "messages_invalid: Messages that were not of the type that their handler takes.",
        "handshakes_refused: WebSocket handshakes that were refused, by the gateway or by the application.",
        "handshakes_timed_out: WebSocket handshakes about which the application did not decide in time.",
        "unserved_refused: Requests refused with 503 because every worker ends again and again.",
        "unserved_closed: WebSockets closed with 1013 for the same reason.",
        "sessions_refused: Values that did not fit into a session.",
        "topics_refused: Subscriptions above `max_topics`.",
        "topic_gaps: Topics with a history whose subscribers may have missed something, since the engine has lost it.",
    ),
    *_rows(C, Part.GATEWAY | Part.PROCESS, "log_lines_dropped: Lines of the log that could not be written."),
    *_rows(
        C,
        Part.GATEWAY,
        "listen_overflows: Clients that the kernel turned away, because too many waited to be accepted.",
        adds=Adds.MAX,  # of sockets that all gateways share
    ),
    *_rows(G, Part.GATEWAY, "topics: Topics with subscribers.", "users: Users with connections."),
    # ---- workers
    *_rows(
        C,
        Part.RELAY | Part.WORKER | Part.DISPATCHER | Part.ENGINE,
        "bad_records: Records of other processes that made no sense and were ignored.",
    ),
    *_rows(
        C,
        Part.WORKER,
        "uploads_refused: Forms with files that were refused with 503, for want of descriptors or disk.",
        "control_refused: Requests on the control socket that were refused.",
        adds=Adds.EACH,
    ),
    *_rows(
        C,
        Part.WORKER,
        "control_refused_reasons: Requests on the control socket that were refused, by reason.",
        adds=Adds.EACH,
        label="reason",
    ),
    *_rows(C, Part.WORKER, "events_handled: Events whose handler was called, of whatever kind.", adds=Adds.EACH),
    *_rows(G, Part.WORKER, "handlers_suspended: Handlers of events that await something.", adds=Adds.EACH),
    *_rows(
        H,
        Part.WORKER,
        "handler: How long handlers took, by event, tasks among them, from their call to their end.",
        "queue: How long events were with a worker before their handler was called, by event.",
        unit="seconds",
        label="event",
    ),
    # ---- tasks
    *_rows(
        C,
        Part.DISPATCHER,
        "tasks_accepted: Tasks that were accepted: the sum of done, failed, lost, cancelled, queued and running.",
        "tasks_done: Tasks whose handler gave a result.",
        "tasks_failed: Tasks whose handler raised.",
        "tasks_lost: Tasks whose task worker ended.",
        "tasks_cancelled: Tasks that were cancelled.",
        "tasks_refused: Tasks that were refused, because too many waited.",
        "task_results_unread: Results that came when nobody was there to take them any more.",
        "task_progress_dropped: Reports of progress for which there was no memory.",
        "pipe_messages: Messages between workers.",
        "pipe_messages_dropped: Messages between workers that were dropped.",
        "dispatcher_full: Times that the dispatcher had no memory for more.",
    ),
    *_rows(
        G,
        Part.DISPATCHER,
        "tasks_queued: Tasks that wait for a task worker.",
        "tasks_running: Tasks that task workers are at.",
    ),
    *_rows(G, Part.DISPATCHER, "dispatcher_bytes: What waits in the dispatcher.", unit="bytes"),
    # ---- topics with a history
    *_rows(
        C,
        Part.ENGINE,
        "publications: Publications in topics with a history.",
        "publications_refused: Publications that were refused: there was no room for more, or no server.",
        "publications_uncertain: Publications of which nobody can say whether they were published.",
        "gateways_behind: How often a gateway took publications too slowly, and had to ask for them again.",
        "subscriptions_recovered: Subscriptions from a position on that have missed nothing.",
        "subscriptions_trimmed: Those that have, because what they missed was not kept any more.",
        "subscriptions_rolled_back: Those of which something that was read is lost.",
        "subscriptions_unknown_epoch: Those with a position that means nothing here, as after a restart of the engine.",
    ),
    *_rows(G, Part.ENGINE, "engine_connected: Whether the engine works: 1, or 0 while its server is not reached."),
    *_rows(G, Part.ENGINE, "history_topics: Topics of which the engine's memory keeps a history."),
    *_rows(G, Part.ENGINE, "history_bytes: What the histories take there.", unit="bytes"),
    *_rows(
        C,
        Part.ENGINE,
        "engine_connections: How often a server was connected to.",
        "engine_messages: Messages of the server: a batch of publications, or a heartbeat.",
        "engine_bad_messages: What came from a server and made no sense.",
        "engine_gaps: How often something of the server was missed, and had to be asked for.",
        "engine_repairs: Questions for what was missed in a topic.",
        "engine_doubles: Publications that came a second time, and went no further.",
        "engine_judged: Topics whose line was found broken.",
        "publications_sent_again: Publications that a server had lost, and was sent again.",
        "publications_lost: Those that it had lost and that were too old to be sent again.",
    ),
    # ---- the process tree
    *_rows(
        G,
        Part.TREE,
        "gateways_wanted: Gateways that there shall be.",
        "gateways_running: Gateways that serve.",
        "workers_wanted: Workers that there shall be.",
        "workers_running: Workers that serve.",
        "spares_wanted: Spare processes that there shall be.",
        "spares_running: Spare processes that are ready.",
    ),
    *_rows(
        C,
        Part.TREE,
        "restarts: Processes that ended unasked and were started again.",
        "replacements: Workers that were replaced because they had worked long enough or grown too large.",
        "reloads: Reloads that are done.",
        "reloads_failed: Reloads whose new code did not start; the old one serves on.",
        "hangs: Processes whose loop stood still for too long.",
        "control_errors: Nonsense that processes told the supervisor.",
        "events_lost: Events of the tree, such as `worker_error`, that no worker could be told of.",
    ),
    # ---- each process
    *_rows(
        G,
        Part.PROCESS,
        "process_up: Whether it serves, and has reported within the last 5 seconds: 1, else 0.",
        adds=Adds.MAX,
    ),
    *_rows(
        G,
        Part.PROCESS,
        "process_uptime: For how long it serves.",
        "process_report_age: How old its last report is: more than a second or two if its loop stands still.",
        unit="seconds",
        adds=Adds.MAX,
    ),
    *_rows(
        G,
        Part.PROCESS,
        "process_memory: Its memory; what it shares with others counts whole (RSS).",
        "process_proportional_memory: Its memory; what it shares with others counts in part (PSS).",
        unit="bytes",
    ),
    *_rows(C, Part.PROCESS, "process_cpu: CPU time that it has used.", unit="seconds"),
    *_rows(
        C,
        Part.PROCESS,
        "process_restarts: Times that it ended unasked and was started again.",
        "errors_reported: Errors of the application that it has logged with an id.",
    ),
    *_rows(
        H,
        Part.PROCESS,
        "loop_lag: How much later than it should its loop came to a timer, four times a second.",
        unit="seconds",
    ),
)

ROWS = {row.name: row for row in TABLE}


def rows(part: Part, kind: Kind | None = None) -> Iterator[Row]:
    """Those that one of these parts counts, of that kind or of any."""
    return (row for row in TABLE if row.part & part and kind in (None, row.kind))


def zeros(part: Part) -> dict[str, int]:
    """What a part written in Python begins to count with: `counters["hosts_refused"] += 1`."""
    return {row.name: 0 for row in rows(part, Kind.COUNTER) if not row.label}


def total(reports: Iterable[Mapping[str, Any]], part: Part) -> dict[str, Any]:
    """One number for all processes, of each counter of these parts that adds up; what nobody has reported is 0."""
    told = list(reports)
    totals: dict[str, Any] = {}
    for row in rows(part):
        if not row.label and row.adds is not Adds.EACH:
            values = [report[row.name] for report in told if row.name in report]
            totals[row.name] = max(values, default=0) if row.adds is Adds.MAX else sum(values)
    return totals
