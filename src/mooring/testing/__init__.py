"""For tests of applications: a server that runs, clients whose waits have limits, and handlers without processes.

    from mooring.testing import in_process, serve

    with serve("chat:server", mode="process", worker_num=2) as running:   # its processes, as users run it
        with running.connect("/?name=ada") as ada:
            ada.send("hello")
            assert ada.receive_json()["text"] == "hello"
            running.kill_worker()

    with in_process(chat.server) as running:                              # the same application in this process
        ...

Clients need the packages websockets and httpx: `pip install 'mooring-server[testing]'`.
"""

from mooring.testing.clients import AsyncClient, Client, Event, Events, Visitor
from mooring.testing.errors import Closed, HandlerFailed, NotInTime, Refused, ServerFailed
from mooring.testing.inside import InsideServer, Made, in_process
from mooring.testing.process import AsyncServedServer, ServedServer, serve
from mooring.testing.running import RunningServer

__all__ = [
    "AsyncClient",
    "AsyncServedServer",
    "Client",
    "Closed",
    "Event",
    "Events",
    "HandlerFailed",
    "InsideServer",
    "Made",
    "NotInTime",
    "Refused",
    "RunningServer",
    "ServedServer",
    "ServerFailed",
    "Visitor",
    "in_process",
    "serve",
]
