"""The monitor's part: answers those who watch the server, from what every process writes."""

import socket

from mooring.monitor.endpoint import Endpoint
from mooring.parts import Host, Part

SUPERVISOR_LIMIT = 15.0  # seconds for which it may show no sign of life before /health says so


class MonitorPart(Part):
    """Serves /metrics, /health and /ready from the start to the end."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._listener = socket.socket(fileno=host.boot.metrics)
        self._endpoint = Endpoint(host.reactor, self._listener, host.boot.scoreboard, SUPERVISOR_LIMIT)

    def abandon(self) -> None:
        self._listener.close()
