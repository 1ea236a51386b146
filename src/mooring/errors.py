"""Every exception the package raises on purpose.

    MooringError
    ├── ConfigError   (also ValueError)    an option, handler or origin that can't be meant
    ├── StateError    (also RuntimeError)  a call at the wrong time
    └── BootError                          an application that can't be loaded

Each message names the thing, what was given and what to do about it.
"""


class MooringError(Exception):
    """The root: `except MooringError` catches whatever this package raises on purpose."""


class ConfigError(MooringError, ValueError):
    """A setting or a handler that can't be used as given; raised while the server is being set up."""


class StateError(MooringError, RuntimeError):
    """A call at the wrong time, such as a push before the server runs or a second `response.end()`."""


class BootError(MooringError):
    """The application can't be loaded: no such module, no such attribute, or the attribute is no server."""
