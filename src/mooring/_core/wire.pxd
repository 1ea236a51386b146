"""Records of the channel between a gateway and a worker. Theory in wire.pyx, the table of them in wire.toml."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef struct Record:
    uint32_t size                    # payload bytes behind the record
    uint8_t kind
    uint8_t opcode
    uint16_t arg
    uint32_t ticket
    uint32_t extra
    uint64_t fd


include "wire_kinds.pxi"


cdef inline int kind_of(const Record* record) noexcept:
    """The kind of an event, or of the one that a report is about."""
    return record.arg if is_report(record.kind) else record.kind


cdef inline Record make_record(uint8_t kind, uint64_t fd, uint32_t size) noexcept nogil:
    """One on no ticket; what else it says is set by name."""
    cdef Record record
    record.size = size
    record.kind = kind
    record.opcode = 0
    record.arg = 0
    record.ticket = NO_TICKET
    record.extra = 0
    record.fd = fd
    return record


cdef class Notice:
    cdef Record record
    cdef readonly bytes payload


cdef Notice new_notice(const Record* record, const uint8_t* payload)
