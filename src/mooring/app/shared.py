"""State that all processes of a server share: atomics, and tables. It lives as long as the server.

It is declared before `start()`, created by the process that starts, and found again by name in each worker, which runs
the same declarations. So it survives the death of any worker, and a reload; code that declares something else than the
server was started with can't be loaded into it, and a reload to it fails.

Atomics are integers in a file in memory, changed by single instructions of the processor. Tables are LMDB databases
there: readers wait for nobody, a writer that is killed in the middle leaves the table as it was before, and the kernel
gives its lock on. The folder is removed with the server; what one that was killed has left is removed by the next.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from mooring._core.atomic import Cells
from mooring.errors import ConfigError, StateError, TableFull

if TYPE_CHECKING:
    import lmdb

T = TypeVar("T")
Row = dict[str, Any]

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
ATOMICS = 4096
ROWS = 1 << 24
ROW_BYTES = 1 << 16
KEY_BYTES = 511  # LMDB's own limit
LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1
DEFAULTS: dict[str, Any] = {"int": 0, "float": 0.0, "str": "", "bytes": b"", "bool": False}
READERS = 4096  # threads that can read a table at a time, of all processes
LOCK_BYTES = 72  # of LMDB's lock file for each of them, and some
PREFIX = "mooring-shared-"


class Declared(msgspec.Struct):
    """What an application has declared, as it goes from process to process."""

    atomics: dict[str, int] = {}
    tables: dict[str, tuple[int, int, dict[str, str]]] = {}  # rows, row_bytes, columns
    folder: str = ""
    lock: int = -1


class Atomic:
    """An integer of 64 bits. Every method is atomic, whatever other processes do; values outside of 64 bits raise
    OverflowError, and StateError comes before `start()`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._cells: Cells | None = None
        self._number = 0

    def _place(self) -> Cells:
        if self._cells is None:
            raise StateError(f"atomic {self.name!r} can be used once the server runs: in a handler, after start()")
        return self._cells

    def get(self) -> int:
        """What it is now."""
        return self._place().load(self._number)

    def set(self, value: int) -> int:
        """Sets it; what it was before."""
        return self._place().swap(self._number, value)

    def add(self, by: int = 1) -> int:
        """Adds to it; what it is then. Beyond the largest number follows the smallest."""
        return self._place().add(self._number, by)

    def compare_and_set(self, old: int, new: int) -> bool:
        """Sets it to `new` if it is `old`; whether it was."""
        return self._place().compare_and_set(self._number, old, new)

    def __repr__(self) -> str:
        return f"Atomic({self.name!r}{'' if self._cells is None else f', {self.get()}'})"


class SharedTable:
    """Rows with columns of fixed types, found by a key of up to 511 bytes in UTF-8.

    Every method is one transaction: others see all of it or nothing. StateError before `start()`.
    """

    def __init__(self, name: str, rows: int, row_bytes: int, columns: Mapping[str, str]) -> None:
        self.name = name
        self.rows = rows
        self.row_bytes = row_bytes
        self.columns = dict(columns)
        self._path = ""
        self._opened: lmdb.Environment | None = None

    # -- reading

    def get(self, key: str) -> Row | None:
        """The row, a dict that is the caller's; None when there is none."""
        with self._reading() as transaction:
            return self._unpack(transaction.get(self._key(key)))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key) is not None

    def __len__(self) -> int:
        entries: int = self._environment().stat()["entries"]
        return entries

    def items(self) -> list[tuple[str, Row]]:
        """All keys and rows as they are at one moment, in the order of the keys' bytes."""
        with self._reading() as transaction:
            return [(bytes(key).decode(), self._unpack(row) or {}) for key, row in transaction.cursor()]

    def keys(self) -> list[str]:
        """All keys as they are at one moment, in the order of their bytes."""
        with self._reading() as transaction:
            return [bytes(key).decode() for key in transaction.cursor().iternext(keys=True, values=False)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    # -- writing

    def set(self, key: str, /, **values: object) -> None:
        """Sets these columns; of a row that was not there, the others are 0, "" or False.

        Raises TableFull, TypeError for a value of another type, ValueError for an unknown column or a row of more than
        `row_bytes`.
        """
        self._change(key, values, lambda row: {**(row or self._empty()), **values})

    def add(self, key: str, /, **values: object) -> bool:
        """Makes a row; False, and nothing is changed, when there is one. Raises what set() raises."""
        return self._change(key, values, lambda row: {**self._empty(), **values} if row is None else None)

    def increment(self, key: str, column: str, by: float = 1) -> Any:
        """Adds to a column of numbers; what it is then. A row that was not there begins with 0."""
        if self.columns.get(column) not in ("int", "float"):
            raise ValueError(f"table {self.name!r} has no column of numbers {column!r}")
        result: list[Any] = []

        def work(row: Row | None) -> Row:
            row = row or self._empty()
            result[:] = [row[column] + by]
            self._check({column: result[0]})
            return {**row, column: result[0]}

        self._change(key, {column: by}, work)
        return result[0]

    def compare_and_set(self, key: str, column: str, old: object, new: object) -> bool:
        """Sets a column to `new` if there is the row and the column is `old`; whether it was."""

        def work(row: Row | None) -> Row | None:
            return {**row, column: new} if row is not None and row[column] == old else None

        return self._change(key, {column: new}, work)

    def delete(self, key: str) -> bool:
        """Removes a row; False when there was none."""
        return self._transact(lambda transaction: bool(transaction.delete(self._key(key))))

    def clear(self) -> None:
        """Removes all rows."""

        def work(transaction: "lmdb.Transaction") -> None:
            transaction.drop(self._environment().open_db(None, txn=transaction), delete=False)

        self._transact(work)

    # -- how

    def _change(self, key: str, values: Mapping[str, object], work: Callable[[Row | None], Row | None]) -> bool:
        self._check(values)
        name = self._key(key)

        def change(transaction: "lmdb.Transaction") -> bool:
            held = transaction.get(name)
            row = work(self._unpack(held))
            if row is None:
                return False
            if (
                held is None
                and transaction.stat(self._environment().open_db(None, txn=transaction))["entries"] >= self.rows
            ):
                raise TableFull(f"table {self.name!r} has {self.rows} rows: delete some, or declare it with more rows")
            # as it was declared: an int in a column of floats comes back as a float
            typed = [float(row[name]) if kind == "float" else row[name] for name, kind in self.columns.items()]
            packed = msgspec.msgpack.encode(typed)
            if len(packed) > self.row_bytes:
                raise ValueError(
                    f"a row of {len(packed)} bytes: table {self.name!r} takes {self.row_bytes} (row_bytes)"
                )
            transaction.put(name, packed)
            return True

        return self._transact(change)

    def _transact(self, work: Callable[["lmdb.Transaction"], T]) -> T:
        import lmdb

        try:
            environment = self._environment()
            try:
                with environment.begin(write=True) as transaction:
                    return work(transaction)
            except lmdb.MapFullError:
                environment.reader_check()  # a reader that was killed keeps old rows alive
                with environment.begin(write=True) as transaction:
                    return work(transaction)
        except lmdb.MapFullError:
            raise TableFull(f"table {self.name!r} has no room for more: declare it with more rows") from None
        except (lmdb.DiskError, lmdb.MemoryError) as problem:
            where = os.path.dirname(os.path.dirname(self._path))
            raise TableFull(f"table {self.name!r} has no room for more: {where} is full ({problem})") from None

    def _check(self, values: Mapping[str, object]) -> None:
        for column, value in values.items():
            kind = self.columns.get(column)
            if kind is None:
                raise ValueError(f"table {self.name!r} has no column {column!r}; it has {', '.join(self.columns)}")
            if type(value).__name__ != kind and not (kind == "float" and type(value) is int):
                raise TypeError(f"column {column!r} of table {self.name!r} is {kind}, and {value!r} is not")
            if type(value) is int and not LOWEST <= value <= HIGHEST:
                raise OverflowError(f"{value}: column {column!r} of table {self.name!r} holds integers of 64 bits")

    def _key(self, key: str) -> bytes:
        name = key.encode()
        if not 0 < len(name) <= KEY_BYTES:
            raise ValueError(f"a key has 1 to {KEY_BYTES} bytes in UTF-8, not {len(name)}")
        return name

    def _empty(self) -> Row:
        return {column: DEFAULTS[kind] for column, kind in self.columns.items()}

    def _unpack(self, packed: bytes | memoryview | None) -> Row | None:
        if packed is None:
            return None
        return dict(zip(self.columns, msgspec.msgpack.decode(packed), strict=True))

    def _reading(self) -> "lmdb.Transaction":
        import lmdb

        environment = self._environment()
        try:
            return environment.begin()
        except lmdb.ReadersFullError:
            environment.reader_check()  # those of processes that were killed
        try:
            return environment.begin()
        except lmdb.ReadersFullError:
            raise StateError(f"table {self.name!r} is read by {READERS} threads already, of all processes") from None

    def _environment(self) -> "lmdb.Environment":
        if self._opened is None:
            if not self._path:
                raise StateError(f"table {self.name!r} can be used once the server runs: in a handler, after start()")
            self._opened = self._open()
        return self._opened

    def _open(self) -> "lmdb.Environment":
        import lmdb

        # twice what full rows take, because a transaction writes anew what it changes; untouched pages cost nothing
        pages = self.rows * (-(-(self.row_bytes + KEY_BYTES + 64) // 4096) if self.row_bytes > 1400 else 1)
        opened = lmdb.open(
            self._path,
            map_size=pages * 4096 * 2 + (4 << 20),
            subdir=False,
            mode=0o600,
            sync=False,  # it does not outlive the machine anyway
            metasync=False,
            max_readers=READERS,
            max_dbs=0,
        )
        opened.reader_check()  # a process that was killed keeps its place among them until somebody looks
        return opened


class Shared:
    """What a server's application has declared."""

    def __init__(self) -> None:
        self.atomics: dict[str, Atomic] = {}
        self.tables: dict[str, SharedTable] = {}
        self.declared = Declared()
        self._frozen = False

    def atomic(self, name: str, initial: int) -> Atomic:
        if name in self.atomics:
            return self.atomics[name]
        self._check(name, "atomic")
        if isinstance(initial, bool) or not isinstance(initial, int) or not LOWEST <= initial <= HIGHEST:
            raise ConfigError(f"atomic {name!r} begins with {initial!r}: it has to be an integer of 64 bits")
        if len(self.atomics) >= ATOMICS:
            raise ConfigError(f"atomic {name!r}: there are {ATOMICS} already")
        self.declared.atomics[name] = initial
        self.atomics[name] = Atomic(name)
        return self.atomics[name]

    def table(self, name: str, rows: int, row_bytes: int, columns: Mapping[str, type]) -> SharedTable:
        if name in self.tables and not columns:
            return self.tables[name]
        self._check(name, "table")
        if name in self.tables:
            raise ConfigError(f"table {name!r} is declared twice")
        for option, value, high in (("rows", rows, ROWS), ("row_bytes", row_bytes, ROW_BYTES)):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
                raise ConfigError(f"table {name!r}: {option}={value!r} must be an integer from 1 to {high}")
        kinds = {column: getattr(kind, "__name__", repr(kind)) for column, kind in columns.items()}
        for column, kind in kinds.items():
            if kind not in DEFAULTS:
                raise ConfigError(f"table {name!r}: column {column}={kind}; it can be {', '.join(DEFAULTS)}")
        if not kinds:
            raise ConfigError(f"table {name!r} has no columns: write them as name=str, age=int")
        try:
            import lmdb  # noqa: F401
        except ImportError:
            raise ConfigError("tables need LMDB: pip install 'mooring-server[tables]'") from None
        self.declared.tables[name] = (rows, row_bytes, kinds)
        self.tables[name] = SharedTable(name, rows, row_bytes, kinds)
        return self.tables[name]

    def _check(self, name: str, what: str) -> None:
        if self._frozen:
            raise StateError(f"{what} {name!r} is not declared: do so before start()")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError(f"{what} {name!r}: a name has 1 to 64 of A-Z a-z 0-9 _ . - and begins with a letter")

    # -- for the runtime

    def create(self) -> Declared:
        """Makes what was declared, in the process that starts the server."""
        if not (self.atomics or self.tables):
            return self.declared
        root = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
        _sweep(Path(root))
        try:
            return self._create(root)
        except OSError as problem:
            remove(self.declared)
            if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM):
                raise ConfigError(
                    f"no room in {root} for what processes share ({os.strerror(problem.errno)}): make it larger"
                ) from None
            raise

    def _create(self, root: str) -> Declared:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        self.declared.folder = str(folder)
        lock = os.open(folder / "new", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "new").rename(folder / "lock")  # from here on it can be seen, and is taken
        size = max(1, len(self.atomics)) * 8
        for name in self.declared.tables:
            # LMDB maps it and writes there: without room that would end the process (SIGBUS), and be no error
            with open(folder / f"{name}.mdb-lock", "x+b") as file:
                os.posix_fallocate(file.fileno(), 0, READERS * LOCK_BYTES)
        with open(folder / "atomics", "x+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            cells = Cells(mmap.mmap(file.fileno(), size))
            for number, value in enumerate(self.declared.atomics.values()):
                cells.swap(number, value)
        self.declared.lock = lock
        return self.declared

    def open(self, made: Declared) -> None:
        """Finds what was made, in a process that runs the application. Raises ConfigError when this application
        declares something else."""
        self._frozen = True
        missing = [name for name in self.atomics if name not in made.atomics]
        changed = [name for name, spec in self.declared.tables.items() if made.tables.get(name) != spec]
        if missing or changed:
            names = ", ".join(repr(name) for name in [*missing, *changed])
            raise ConfigError(
                f"shared state was declared in another way when the server was started: {names}; restart the server"
            )
        if not made.folder:
            return
        folder = Path(made.folder)
        with open(folder / "atomics", "r+b") as file:
            cells = Cells(mmap.mmap(file.fileno(), 0))
        for number, name in enumerate(made.atomics):
            if name in self.atomics:
                self.atomics[name]._cells, self.atomics[name]._number = cells, number
        for name, table in self.tables.items():
            table._path = str(folder / f"{name}.mdb")


def remove(made: Declared) -> None:
    """The server has ended."""
    if made.folder:
        shutil.rmtree(made.folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Removes what killed servers of this user have left: their locks are free."""
    for folder in root.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            found = os.lstat(folder)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue  # whoever may write in `root` can plant something by that name
            lock = os.open(folder / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
