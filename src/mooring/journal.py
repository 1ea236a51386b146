"""The loggers of this package, which the application can't reach by accident.

A client is told an error id, and the traceback has to stand in the log under it, whatever the application did:
`dictConfig` disables loggers that it does not name, `logging.disable` silences all, others take handlers away or put in
a factory of their own. All of these work on what hangs at `logging.root`. Our loggers hang at a root of their own,
make their records themselves, and call only the handlers that `mooring.net.log` gives them.

Whoever wants the lines elsewhere, too, finds them where he looks for them: a record is also handed to the logger of
the same name that `logging.getLogger` knows, as far as that takes it (its level, its handlers, `propagate`). Until the
process has a log, that is all that becomes of it.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None] | None


class OwnRecord(logging.LogRecord):
    """A line of this package."""


class _OwnLogger(logging.Logger):
    def __init__(self, name: str, level: int = logging.NOTSET) -> None:
        super().__init__(name, level)
        self._public = logging.getLogger(name)

    def isEnabledFor(self, level: int) -> bool:
        return super().isEnabledFor(level) or self._public.isEnabledFor(level)

    def makeRecord(
        self,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: _ExcInfo,
        func: str | None = None,
        extra: Mapping[str, object] | None = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        record = OwnRecord(name, level, fn, lno, msg, args, exc_info, func, sinfo)
        vars(record).update(extra or {})
        return record

    def handle(self, record: logging.LogRecord) -> None:
        if super().isEnabledFor(record.levelno):
            self.callHandlers(record)
        if self._public.isEnabledFor(record.levelno):
            with suppress(BaseException):  # of a handler or a filter that is not ours; the line is written already
                self._public.handle(record)

    def callHandlers(self, record: logging.LogRecord) -> None:
        """Not that of the base class: there are packages that put in one of theirs."""
        logger: logging.Logger | None = self
        while logger is not None:
            for handler in logger.handlers:
                handler.handle(record)
            logger = logger.parent if logger.propagate else None


# nothing is written, and no level reached, until there is a log
_root = _OwnLogger("mooring", logging.CRITICAL + 1)
_manager = logging.Manager(_root)  # type: ignore[arg-type]
_manager.loggerClass = _OwnLogger
_root.manager = _manager


def own_logger(name: str = "mooring") -> logging.Logger:
    """`mooring` or `mooring.PART`; what is set for the first counts for all."""
    return _root if name == "mooring" else _manager.getLogger(name)
