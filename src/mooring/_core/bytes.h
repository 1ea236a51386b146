/* Byte-level work of the frame codec: masking and UTF-8, on buffers of known length.
 *
 * Nothing here allocates, and nothing reads outside [data, data + size): eight bytes are taken at a time only
 * while eight are left (a masking routine that read past the end was CVE-2026-49854 of another server). */
#ifndef MOORING_BYTES_H
#define MOORING_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* RFC 6455 section 5.3: octet i of the payload is XORed with octet (i mod 4) of the key. `phase` is i mod 4 of
 * the first octet given, so that a payload can be unmasked in the pieces it arrives in. dst == src is allowed. */
static inline void mooring_unmask(uint8_t *dst, const uint8_t *src, size_t size, const uint8_t key[4], unsigned phase)
{
    uint8_t turned[8];
    uint64_t wide, word;
    size_t i = 0;

    for (unsigned k = 0; k < 8; k++)
        turned[k] = key[(phase + k) & 3];
    memcpy(&wide, turned, 8);
    for (; size - i >= 8; i += 8) {
        memcpy(&word, src + i, 8);
        word ^= wide;
        memcpy(dst + i, &word, 8);
    }
    for (; i < size; i++)
        dst[i] = src[i] ^ turned[i & 7];
}

/* A UTF-8 stream (RFC 3629) between two reads: how many continuation octets the current character still needs,
 * and the range that the next one must lie in. The ranges shut out overlong forms, surrogates and anything
 * above U+10FFFF at the first octet that shows them. All zero is the start of a text. */
typedef struct {
    uint8_t need, low, high;
} mooring_utf8;

/* 1 while the octets so far can begin a valid text, 0 for ever after a wrong one. */
static inline int mooring_utf8_feed(mooring_utf8 *s, const uint8_t *data, size_t size)
{
    size_t i = 0;

    while (i < size) {
        uint8_t octet;

        if (s->need == 0) {
            uint64_t word;
            while (size - i >= 8) {
                memcpy(&word, data + i, 8);
                if (word & UINT64_C(0x8080808080808080))
                    break;
                i += 8;
            }
            while (i < size && data[i] < 0x80)
                i++;
            if (i == size)
                break;
            octet = data[i++];
            s->low = 0x80;
            s->high = 0xBF;
            if (octet >= 0xC2 && octet <= 0xDF) {
                s->need = 1;
            } else if (octet >= 0xE0 && octet <= 0xEF) {
                s->need = 2;
                if (octet == 0xE0)
                    s->low = 0xA0;
                else if (octet == 0xED)
                    s->high = 0x9F;
            } else if (octet >= 0xF0 && octet <= 0xF4) {
                s->need = 3;
                if (octet == 0xF0)
                    s->low = 0x90;
                else if (octet == 0xF4)
                    s->high = 0x8F;
            } else {
                return 0;
            }
        } else {
            octet = data[i++];
            if (octet < s->low || octet > s->high)
                return 0;
            s->need--;
            s->low = 0x80;
            s->high = 0xBF;
        }
    }
    return 1;
}

#endif
