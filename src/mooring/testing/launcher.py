"""`python -m mooring.testing.launcher JSON`: serves the application that the test has named.

It is run by the process that becomes the supervisor, and again by each worker, since it is what has called `start()`.
A module that calls `start()` when it is imported, as a script without `if __name__ == "__main__"` does, is met: then it
is that call which serves, with the settings of the test.
"""

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any, NoReturn

import msgspec

from mooring.app.loader import is_missing, missing
from mooring.errors import BootError, ConfigError
from mooring.server import Server
from mooring.testing.application import Named

_start = Server.start


def main() -> NoReturn:
    named = msgspec.json.decode(sys.argv[1], type=Named)
    sys.path[:0] = [entry for entry in named.path if entry not in sys.path]

    def start(self: Server, **_: object) -> NoReturn:
        Server.start = _start  # type: ignore[method-assign]
        for listener in self._listeners:  # a fixed port may be taken
            if listener._options.get("port"):
                listener._options["port"] = 0
        self.set(**named.settings)
        _start(self)

    Server.start = start  # type: ignore[method-assign]
    try:
        _found(_module(named), named).start()
    except (BootError, ConfigError) as error:
        sys.exit(f"Error: {error}")


def _module(named: Named) -> ModuleType:
    """By its name where that leads to its file; else from the file, as test runners do."""
    if not named.file:
        try:
            return import_module(named.module)
        except ModuleNotFoundError as error:
            if not is_missing(error, named.module):
                raise
            raise BootError(f"{named}: there is no module {error.name!r} on the import path of the test") from error
    try:
        spec = find_spec(named.module)
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin == named.file:
        return import_module(named.module)
    spec = spec_from_file_location(named.module, named.file)
    if spec is None or spec.loader is None:
        raise BootError(f"{named.file} can't be imported")
    module = sys.modules[named.module] = module_from_spec(spec)
    folder = named.file.rpartition("/")[0]
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as Python does for a script
    spec.loader.exec_module(module)
    return module


def _found(module: ModuleType, named: Named) -> Server:
    if not named.attribute:
        servers = [value for value in vars(module).values() if isinstance(value, Server)]
        if len(servers) != 1:
            raise BootError(f"{named} has {len(servers)} servers at its top level: name one, as in {named}:server")
        return servers[0]
    value: Any = module
    for name in named.attribute.split("."):
        if not hasattr(value, name):
            raise BootError(f"{named}: {missing(value, name, named.file or named.module)}")
        value = getattr(value, name)
    if not isinstance(value, Server) and callable(value):
        value = value()
    if not isinstance(value, Server):
        raise BootError(f"{named} is a {type(value).__name__}, and no mooring.Server or function that makes one")
    return value


if __name__ == "__main__":
    main()
