"""Growing byte buffers in plain memory: the only place of the core that calls realloc.

A buffer doubles, so appending n bytes in any pieces costs time linear in n. It never holds more than twice what
was put into it: nothing is reserved for bytes that a peer only promised (CVE-2022-35922 of another server).
"""

from libc.stddef cimport size_t
from libc.stdint cimport SIZE_MAX, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove

cdef enum:
    SMALLEST = 512       # first allocation: a few small frames
    SPARES = 1024        # freed blocks of that size kept for the next buffer

# Buffers live for one turn of the reactor in the common case, so the smallest blocks go round without the allocator.
cdef uint8_t* spares[SPARES]
cdef int spare_count = 0
cdef Py_ssize_t live = 0


def live_buffers() -> int:
    """How many buffers hold memory; a test that leaks none leaves it as it was."""
    return live


cdef uint8_t* _take(size_t capacity) noexcept nogil:
    global spare_count, live
    cdef uint8_t* block
    if capacity == SMALLEST and spare_count > 0:
        spare_count -= 1
        block = spares[spare_count]
    else:
        block = <uint8_t*> malloc(capacity)
        if block == NULL:
            return NULL
    live += 1
    return block


cdef void _give(uint8_t* block, size_t capacity) noexcept nogil:
    global spare_count, live
    live -= 1
    if capacity == SMALLEST and spare_count < SPARES:
        spares[spare_count] = block
        spare_count += 1
    else:
        free(block)


cdef void buffer_compact(Buffer* buffer) noexcept nogil:
    if buffer.start:
        memmove(buffer.data, buffer.data + buffer.start, buffer.end - buffer.start)
        buffer.end -= buffer.start
        buffer.start = 0


cdef int buffer_reserve(Buffer* buffer, size_t more) noexcept nogil:
    cdef size_t used = buffer.end - buffer.start
    cdef size_t needed, capacity
    cdef uint8_t* block
    if more <= buffer.capacity - buffer.end:
        return 0
    if more > (SIZE_MAX >> 1) - used:
        return -1
    needed = used + more
    if needed <= buffer.capacity and buffer.start >= buffer.capacity >> 1:
        buffer_compact(buffer)
        return 0
    capacity = buffer.capacity if buffer.capacity else SMALLEST
    while capacity < needed:
        capacity <<= 1
    block = _take(capacity)
    if block == NULL:
        return -1
    if buffer.data != NULL:
        memcpy(block, buffer.data + buffer.start, used)
        _give(buffer.data, buffer.capacity)
    buffer.data = block
    buffer.start = 0
    buffer.end = used
    buffer.capacity = capacity
    return 0


cdef int buffer_append(Buffer* buffer, const uint8_t* data, size_t size) noexcept nogil:
    if size == 0:
        return 0
    if buffer_reserve(buffer, size) < 0:
        return -1
    memcpy(buffer.data + buffer.end, data, size)
    buffer.end += size
    return 0


cdef void buffer_consume(Buffer* buffer, size_t size) noexcept nogil:
    buffer.start += size
    if buffer.start >= buffer.end:
        buffer_free(buffer)


cdef void buffer_free(Buffer* buffer) noexcept nogil:
    if buffer.data != NULL:
        _give(buffer.data, buffer.capacity)
    buffer.data = NULL
    buffer.start = buffer.end = buffer.capacity = 0
