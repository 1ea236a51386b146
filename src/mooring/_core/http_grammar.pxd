"""What a token of HTTP is made of (RFC 9110 section 5.6.2), for who reads one and who writes one."""


cdef inline bint is_tchar(unsigned char c) noexcept nogil:
    return b"a" <= c | 0x20 <= b"z" or b"0" <= c <= b"9" or c in b"!#$%&'*+-.^_`|~"


cdef inline bint is_token(str text) noexcept:
    cdef Py_UCS4 c
    for c in text:
        if c > 0x7F or not is_tchar(<unsigned char> c):
            return False
    return len(text) > 0
