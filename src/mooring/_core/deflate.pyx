"""permessage-deflate (RFC 7692), sans-IO: one message in, one message out.

Without context takeover, the default, no message refers to another. So one compressor serves all connections of a kind:
a full flush behind each message makes it forget what it has seen (and never lets one client's bytes show in the size of
another's message). A connection then costs nothing while it is silent, and a published message is compressed once for
all of them. With takeover a connection has its own compressor (256 KiB) and inflater (40 KiB): `own()` makes them.

Inflating is bounded before it begins, to the message limit: so a bomb costs what a message of that size costs, and no
more. (Also to `ratio` times what came in once that is more than 64 KiB, for who asks for that; honest messages, a blank
picture for instance, may be a thousand times as large as what came.) A stream that is broken, or not at a block's end
where the message ends, is refused: a message is never handed out in part.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

import zlib

try:
    # a drop-in for zlib, faster for messages of some KiB (bench/deflate.py): taken when it is installed, for what
    # connections share
    from zlib_ng import zlib_ng as FASTEST
except ImportError:
    FASTEST = zlib

cdef bytes TAIL = b"\x00\x00\xff\xff"        # ends every flush; not sent (RFC 7692 section 7.2.1)
cdef bytes END = b"\x03\x00"                 # an empty final block: a stream at a block's end takes it and is over
cdef size_t FREE = 65536                     # bytes to which any message may inflate, whatever the ratio
cdef int FINAL_BLOCKS = 16                   # a message may hold so many (section 7.2.3.5); one is usual; and one more
cdef size_t BLOCK = 4096                     # for so many bytes: each costs a new inflater
# zlib can't compress with a window of 8 bits; a message of 256 bytes needs none.
cdef size_t SMALLEST_WINDOW = 256


class TooLong(Exception):
    """The message would inflate beyond the limit or the ratio; the text says to what."""


class Broken(Exception):
    """It is no deflate stream, or it ends inside of a block."""


cdef class Deflate:
    """One agreement: parameters of RFC 7692 section 7.1, and what compresses and inflates by them.

    bits, peer_bits: 8 to 15, the window of what we send and of what the peer sends. keeps, peer_keeps: context
    takeover. limit: bytes a message may inflate to; ratio: how many times its own size, 0: any; threshold: smaller
    messages are not compressed; level (1 to 9), memory (1 to 9): what zlib may spend. engine: zlib, or a module that
    offers the same.
    """

    def __cinit__(self, bits: int = 15, peer_bits: int = 15, keeps: bool = False, peer_keeps: bool = False, *,
                  limit: int, ratio: float = 0.0, threshold: int = 64, level: int = 6, memory: int = 8,
                  engine: object = FASTEST) -> None:
        if not (8 <= bits <= 15 and 8 <= peer_bits <= 15):
            raise ValueError(f"a window has 8 to 15 bits, not {bits} and {peer_bits} (RFC 7692 section 7.1.2)")
        if bits == 8 and keeps:
            raise ValueError("context takeover needs a window of at least 9 bits here")
        self.bits = bits
        self.peer_bits = peer_bits
        self.keeps = keeps
        self.peer_keeps = peer_keeps
        self.limit = limit
        self.ratio = ratio
        self.threshold = threshold
        self.longest = SMALLEST_WINDOW if bits == 8 else 0
        self.level = level
        self.memory = memory
        self.engine = engine

    cdef Deflate own(self):
        """The same for one connection; itself when nothing is to be kept from message to message."""
        if not self.keeps and not self.peer_keeps:
            return self
        # zlib-ng's tables do not shrink with the window and the memory level: what each connection has is zlib's
        return Deflate(self.bits, self.peer_bits, self.keeps, self.peer_keeps, limit=self.limit, ratio=self.ratio,
                       threshold=self.threshold, level=self.level, memory=self.memory, engine=zlib)

    cdef bytes compress(self, const uint8_t* data, size_t size):
        """The payload of a frame with RSV1."""
        if self.compressor is None:
            self.compressor = self.engine.compressobj(self.level, zlib.DEFLATED, -max(self.bits, 9), self.memory)
        flush = zlib.Z_SYNC_FLUSH if self.keeps else zlib.Z_FULL_FLUSH
        payload = (self.compressor.compress(PyBytes_FromStringAndSize(<const char*> data, size))
                   + self.compressor.flush(flush))
        return payload[:-4]

    cdef object inflate(self, const uint8_t* data, size_t size):
        """The message. Raises TooLong or Broken."""
        cdef size_t bound = self.limit
        cdef size_t final_blocks = 0
        if self.ratio > 0:
            bound = min(bound, max(FREE, <size_t> (size * self.ratio)))
        inflater = self.inflater
        if inflater is None:
            inflater = self.engine.decompressobj(-self.peer_bits)
        if size == 0:
            return b""           # it can only be nothing, although one byte is due (RFC 7692 section 7.2.3.6)
        rest = PyBytes_FromStringAndSize(<const char*> data, size) + TAIL
        message = b""
        try:
            while True:
                message += inflater.decompress(rest, bound + 1 - len(message))
                if <size_t> len(message) > bound:
                    raise TooLong(f"it inflates to more than {bound} bytes")
                if not inflater.eof:
                    break
                if type(message) is bytes:
                    message = bytearray(message)         # it grows
                # a final block: what follows is another stream, which may refer to what is there already
                rest = inflater.unused_data
                inflater = self.engine.decompressobj(-self.peer_bits, zdict=bytes(message[-32768:]))
                final_blocks += 1
                if final_blocks > FINAL_BLOCKS + <size_t> len(message) // BLOCK:
                    raise Broken(f"{final_blocks} final blocks in a message of {len(message)} bytes")
                if rest == TAIL:
                    break        # the message ends with that block: it is whole, although a byte is due behind it
            if inflater.unconsumed_tail:
                raise TooLong(f"it inflates to more than {bound} bytes")
            probe = inflater.copy() if self.peer_keeps else inflater
            if probe.decompress(END, 1) or not probe.eof or probe.unused_data:
                raise Broken("the message ends inside of a deflate block")
        except self.engine.error as error:
            raise Broken(str(error)) from None
        self.inflater = inflater if self.peer_keeps else None
        return bytes(message)


# ------------------------------------------------------------------ for tests and tools

def compress(deflate: Deflate, data: bytes) -> bytes:
    """What `deflate` would send for a message."""
    return deflate.compress(data, len(data))


def inflate(deflate: Deflate, data: bytes) -> bytes:
    """The message of a payload. Raises TooLong or Broken."""
    return deflate.inflate(data, len(data))
