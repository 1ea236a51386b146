"""The section `operation` of the settings: how a server is run by whoever runs it."""

from dataclasses import dataclass

from .option import Section, check_address, check_path, option


@dataclass(frozen=True)
class Operation(Section):
    """How it is run: its process id, its log."""

    pid_file: str = option(
        "",
        "Path of a file with the process id, locked while the server runs: a second server with the same file "
        "does not start. One that a dead server has left is replaced; anything else there is left alone, and the start "
        "fails. Removed at the end. Empty: there is none.",
        check=check_path,
    )
    log_file: str = option(
        "",
        "File that the log is appended to, by all processes. It and `access_log_file` are opened again on SIGRTMIN, as "
        "logrotate needs it. Lines that can't be written are dropped and counted. Empty: standard error.",
        check=check_path,
    )
    log_format: str = option(
        "text",
        "What a line looks like, in both files: `text`, or `json`: an object with `time`, `level`, `process`, `pid`, "
        "`logger`, `message`, and if there is one `error_id` and `exception`.",
        choices=("text", "json"),
    )
    app_log_level: str = option(
        "info",
        "The least serious line of the application that is logged, where it has set no level and no handler itself: "
        "the level of Python's root logger.",
        choices=("debug", "info", "warning", "error", "critical"),
    )
    access_log_file: str = option(
        "", "File for the lines of `access_log`. Empty: they stand in the log.", check=check_path
    )
    tracing: bool = option(
        False,
        "OpenTelemetry spans for what the application's handlers do. Where they go, is a matter of its SDK, which "
        "the application sets up. Needs `mooring-server[otel]`.",
    )
    metrics_listen: str = option(
        "",
        "Where `/metrics` (for Prometheus), `/health` and `/ready` (for Kubernetes and load balancers) are served: "
        "`HOST:PORT`, such as `127.0.0.1:9600`, or `unix:PATH`. It is a listener of its own, and whoever can connect "
        "may read: nothing of it is secret, but it says how much is going on. Needs `mooring-server[metrics]`. Empty: "
        "there is none.",
        check=check_address,
    )
