"""What of a worker depends on the listener that a connection came from."""

from typing import Any

from mooring.app.handlers import Handlers
from mooring.app.spools import Spools
from mooring.config import Settings
from mooring.worker.site import sites_of


def handlers(name: str, fallback: Handlers | None = None) -> Handlers:
    def request(request: Any, response: Any) -> str:
        return name

    made = Handlers(fallback)
    made.register("request", request)
    return made


def test_each_listener_has_its_handlers_and_its_settings():
    settings = Settings.from_options(
        {
            "compress": True,
            "listeners": [{"port": 1, "on_error": "keep"}, {"port": 2, "compress": True, "write_high_water": 4096}],
        }
    )
    server, spools = handlers("server"), Spools(1)
    sites = sites_of(server, [handlers("first", server), handlers("second", server)], settings, spools)
    assert [site.handlers.get("request")(None, None) for site in sites] == ["server", "first", "second"]
    assert [site.compressor is not None for site in sites] == [True, False, True]
    assert [site.keeps_failed for site in sites] == [False, True, False]
    assert [site.window for site in sites] == [settings.flow.write_high_water] * 2 + [4096]
    assert {id(site.forms.spools) for site in sites} == {id(spools)}, "all forms of a worker share one"


def test_a_listener_that_the_application_does_not_name_any_more_has_the_server_s_handlers():
    """It was bound when the server started, and stays open over a reload."""
    settings = Settings.from_options({"listeners": [{"port": 1}, {"port": 2}]})
    server = handlers("server")
    sites = sites_of(server, [handlers("first", server)], settings, Spools(1))
    assert [site.handlers.get("request")(None, None) for site in sites] == ["server", "first", "server"]
