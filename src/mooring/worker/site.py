"""What of a worker depends on the listener that a connection came from: its handlers, and how it is answered."""

from collections.abc import Callable, Sequence
from typing import Any

from mooring.app.compress import Compressor
from mooring.app.forms import FormLimits
from mooring.app.handlers import Handlers
from mooring.app.spools import Spools
from mooring.app.static import Documents
from mooring.config import Settings


class Site:
    """What is served at one listener."""

    def __init__(self, handlers: Handlers, settings: Settings, spools: Spools) -> None:
        http = settings.http
        self.handlers = handlers
        self.http = http
        self.keeps_failed = settings.websocket.on_error == "keep"  # a WebSocket stays open when its handler raises
        self.on_invalid = settings.websocket.on_invalid
        self.close_records = settings.flow.close_records
        self.as_json = settings.operation.log_format == "json"
        self.max_spawned = settings.websocket.max_spawned
        self.window = settings.flow.write_high_water  # bytes sent without asking whether the client reads
        self.forms = FormLimits(
            http.form_field_limit, http.multipart_part_limit, http.form_memory, http.upload_spool_size, spools
        )
        self.compressor = Compressor(http.compress_min_size) if http.compress else None
        self.documents = Documents(http.document_root) if http.document_root else None


def trace_sites(sites: Sequence[Site], session: Callable[[int], Any]) -> Callable[[], dict[str, str]]:
    """Gives each call of a handler a span; nothing of OpenTelemetry is imported elsewhere. What writes the current span
    down for a task."""
    from mooring.worker.tracing import TracedHandlers, trace_context

    for site in sites:
        site.handlers = TracedHandlers(site.handlers, session)
    return trace_context


def sites_of(handlers: Handlers, listeners: Sequence[Handlers], settings: Settings, spools: Spools) -> list[Site]:
    """One for each listener that is bound, by its index. One for which the application has no handlers, because it was
    changed since the start, has those of the server."""
    found = [handlers, *listeners]
    every = settings.per_listener
    return [Site(found[n] if n < len(found) else handlers, settings, spools) for n, settings in enumerate(every)]
