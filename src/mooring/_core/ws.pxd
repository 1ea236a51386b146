"""WebSocket frames (RFC 6455 section 5), sans-IO: what the connection and the relay use. Theory in ws.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from mooring._core.buffer cimport Buffer


cdef extern from "bytes.h":
    ctypedef struct mooring_utf8:
        uint8_t need
        uint8_t low
        uint8_t high
    void mooring_unmask(
        uint8_t* dst, const uint8_t* src, size_t size, const uint8_t* key, unsigned phase
    ) noexcept nogil
    int mooring_utf8_feed(mooring_utf8* state, const uint8_t* data, size_t size) noexcept nogil


cdef enum:
    OP_CONTINUATION = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    OP_PING = 9
    OP_PONG = 10
    RSV1 = 0x40              # or-ed to the opcode of a compressed message's first frame (RFC 7692 section 6)
    CONTROL_LIMIT = 125      # section 5.5: payload of a control frame
    HEADER_LIMIT = 14        # the longest header a client can send
    SERVER_HEADER_LIMIT = 10  # the longest header without a masking key


cdef struct FrameLimits:
    uint64_t message         # bytes of a whole message
    uint32_t fragments       # frames of a whole message
    bint unmasked            # a pong or a close frame need not be masked


cdef struct FrameDecoder:
    # header being collected: head[:have]; while `payload` is set, the header is complete and `left` bytes follow
    uint8_t head[HEADER_LIMIT]
    uint8_t have
    bint payload
    # frame being read
    uint8_t opcode
    bint final
    uint8_t key[4]
    uint8_t phase            # payload bytes of this frame seen so far, mod 4
    bint bare                # it has no mask
    uint64_t left
    # message being assembled: message_opcode is 0 between messages
    uint8_t message_opcode
    bint deflates            # permessage-deflate was agreed: RSV1 may be set in the first frame of a message
    bint compressed          # ... and was, in this one (RFC 7692 section 6)
    uint32_t fragments
    mooring_utf8 utf8
    Buffer message
    # control frame being assembled
    Buffer control
    # the event handed out last pointed into `message` / `control`; that memory goes at the next call
    bint spent_message
    bint spent_control


cdef enum DecodeResult:
    NEED_MORE = 0
    MESSAGE = 1
    CONTROL = 2
    FAILED = 3


cdef struct FrameEvent:
    # data[:size] is valid until the next call with the same decoder or the same input
    uint8_t opcode
    bint compressed          # a message: its payload is to be inflated, and not checked yet
    const uint8_t* data
    size_t size
    # of an outcome FAILED: the close code to send, and why
    uint16_t code
    const char* reason


cdef DecodeResult decode_next(FrameDecoder* decoder, const FrameLimits* limits, uint8_t* data, size_t size,
                              size_t* position, FrameEvent* event) noexcept nogil
# Gives back the memory of the event handed out last.
cdef void decoder_release(FrameDecoder* decoder) noexcept nogil
cdef void decoder_free(FrameDecoder* decoder) noexcept nogil
# The header of an unmasked frame; gives its length (at most SERVER_HEADER_LIMIT).
cdef size_t encode_header(uint8_t* out, uint8_t opcode, bint final, uint64_t size) noexcept nogil
# Reads a close frame's payload (section 5.5.1): 0, or the close code that its fault deserves.
cdef uint16_t parse_close(const uint8_t* data, size_t size, uint16_t* code) noexcept nogil
cdef bint may_send_close_code(int code) noexcept nogil
cdef bint is_utf8(const uint8_t* data, size_t size) noexcept nogil


cdef class Frame:
    cdef public uint64_t fd
    cdef public object data
    cdef int code_of_opcode
    cdef public bint finish
    cdef public int flags
    cdef public int attempt


cdef class CloseFrame(Frame):
    cdef readonly int code
    cdef readonly str reason


cdef Frame new_frame(uint64_t fd, int opcode, const uint8_t* data, size_t size)
