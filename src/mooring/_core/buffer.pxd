"""Growing byte buffers in plain memory: the only place of the core that calls realloc."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t


cdef struct Buffer:
    # 0 <= start <= end <= capacity; the bytes in use are data[start:end]; data is NULL when capacity is 0
    uint8_t* data
    size_t start
    size_t end
    size_t capacity


cdef inline size_t buffer_size(const Buffer* buffer) noexcept nogil:
    return buffer.end - buffer.start


# Room for `more` bytes behind `end`: 0, or -1 when there is no memory (the buffer is unchanged then).
cdef int buffer_reserve(Buffer* buffer, size_t more) noexcept nogil
# Appends a copy: 0, or -1 when there is no memory.
cdef int buffer_append(Buffer* buffer, const uint8_t* data, size_t size) noexcept nogil
# Takes `size` bytes from the front; an empty buffer gives its memory back.
cdef void buffer_consume(Buffer* buffer, size_t size) noexcept nogil
cdef void buffer_free(Buffer* buffer) noexcept nogil
# Takes the bytes back to the front of the memory, so that what is free lies behind them.
cdef void buffer_compact(Buffer* buffer) noexcept nogil
