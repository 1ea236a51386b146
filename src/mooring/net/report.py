"""What the application raises, and what it prints, told in the log.

Errors are written whatever it is that was raised, and whatever the application's own filters and handlers of log lines
do with them: who is told the id of an error finds it in the log.
"""

import contextlib
import logging
import os
import secrets
import sys
import time
from typing import Final

from mooring.app.foreign import text_of, traceback_of
from mooring.near import attribute_meant, call_meant

_STDERR: Final = 2

_given = 0  # ids, by this process


def new_error_id() -> str:
    global _given
    _given += 1
    return secrets.token_hex(4)


def errors_reported() -> int:
    """How many errors of the application this process has given an id."""
    return _given


def report(log: logging.Logger, message: str, error_id: str, *values: object, error: BaseException) -> None:
    """One line, whose first value is the id, with the traceback behind it. Raises MemoryError when there is no memory
    for it, and nothing else."""
    text = traceback_of(error) + _hint(error)
    try:
        about = (type(error), error, error.__traceback__)
        told = {"error_id": error_id}
        all_values = (error_id, *values)
        record = log.makeRecord(log.name, logging.ERROR, __file__, 0, message, all_values, about, "report", told)
        record.exc_text = text  # formatters take it as it is, and don't ask the exception again
        if log.isEnabledFor(logging.ERROR):
            log.handle(record)
    except MemoryError:
        raise
    except BaseException as problem:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        why = f"(the log has not taken it: {text_of(problem, repr)})"
        _write(f"{now} ERROR [{os.getpid()}] {message % (error_id, *values)}\n{text}\n{why}\n")


def _hint(error: BaseException) -> str:
    """What to do, of errors of Python that don't say it."""
    text = text_of(error)
    meant = ""
    if type(error) in (TypeError, RuntimeError):
        meant = call_meant(text)
    elif type(error) is AttributeError:
        meant = attribute_meant(error, text)
    return f"\n({meant})" if meant else ""


def finish_output(log: logging.Logger) -> None:
    """Writes what the application has printed, at the end of the process. If nobody takes it, it is given up: the
    interpreter would try again, and end with an exit code of its own."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name, None)
        try:
            if stream is not None:
                stream.flush()
        except BaseException as error:
            setattr(sys, name, None)
            log.warning("what was printed to sys.%s last could not be written: %s", name, text_of(error))


def _write(text: str) -> None:
    with contextlib.suppress(OSError):  # else there is nobody to tell
        os.write(_STDERR, text.encode("utf-8", "backslashreplace"))
