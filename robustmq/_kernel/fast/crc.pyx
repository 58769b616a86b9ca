# cython: language_level=3, binding=True
"""CRC-32C (Castagnoli), the checksum of record batches and segment files: compiled."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    #define RMQ_CRC_POLYNOMIAL 0x82f63b78u

    static uint32_t rmq_crc_slice[8][256];

    /* Eight bytes a step: slice[k][b] is the checksum of byte b followed by k zero bytes. */
    static uint32_t rmq_crc_table(const uint8_t *p, size_t n, uint32_t crc) {
        while (n >= 8) {
            uint32_t low = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8
                                  | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
            crc = rmq_crc_slice[7][low & 255] ^ rmq_crc_slice[6][low >> 8 & 255]
                ^ rmq_crc_slice[5][low >> 16 & 255] ^ rmq_crc_slice[4][low >> 24]
                ^ rmq_crc_slice[3][p[4]] ^ rmq_crc_slice[2][p[5]]
                ^ rmq_crc_slice[1][p[6]] ^ rmq_crc_slice[0][p[7]];
            p += 8;
            n -= 8;
        }
        while (n--) crc = crc >> 8 ^ rmq_crc_slice[0][(crc ^ *p++) & 255];
        return crc;
    }

    static uint32_t (*rmq_crc_run)(const uint8_t *, size_t, uint32_t) = rmq_crc_table;

    #if defined(__x86_64__) && defined(__GNUC__)
    #include <nmmintrin.h>
    #define RMQ_CRC_LONG 2048
    #define RMQ_CRC_SHORT 192

    static uint32_t rmq_crc_long[4][256], rmq_crc_short[4][256];

    /* The checksum is linear: moving it over n zero bytes is the xor of four look-ups. */
    static inline uint32_t rmq_crc_move(uint32_t table[4][256], uint32_t crc) {
        return table[0][crc & 255] ^ table[1][crc >> 8 & 255]
             ^ table[2][crc >> 16 & 255] ^ table[3][crc >> 24];
    }

    static void rmq_crc_fill_move(uint32_t table[4][256], size_t n) {
        static const uint8_t zeros[RMQ_CRC_LONG];
        for (int k = 0; k < 4; k++) {
            table[k][0] = 0;
            for (int bit = 0; bit < 8; bit++) {
                uint32_t image = rmq_crc_table(zeros, n, (uint32_t)1 << (8 * k + bit));
                for (int b = 0; b < 1 << bit; b++) table[k][1 << bit | b] = table[k][b] ^ image;
            }
        }
    }

    static inline uint64_t rmq_crc_load(const uint8_t *p) {
        uint64_t word;
        memcpy(&word, p, 8);
        return word;
    }

    /* The instruction takes three cycles and starts every cycle: three blocks side by side. */
    #define RMQ_CRC_THREE(size, table)                                            \\
        while (n >= 3 * (size)) {                                                 \\
            uint64_t first = crc, second = 0, third = 0;                          \\
            const uint8_t *end = p + (size);                                      \\
            for (; p < end; p += 8) {                                             \\
                first = _mm_crc32_u64(first, rmq_crc_load(p));                    \\
                second = _mm_crc32_u64(second, rmq_crc_load(p + (size)));         \\
                third = _mm_crc32_u64(third, rmq_crc_load(p + 2 * (size)));       \\
            }                                                                     \\
            crc = rmq_crc_move(table, (uint32_t)first) ^ (uint32_t)second;        \\
            crc = rmq_crc_move(table, crc) ^ (uint32_t)third;                     \\
            p += 2 * (size);                                                      \\
            n -= 3 * (size);                                                      \\
        }

    __attribute__((target("sse4.2")))
    static uint32_t rmq_crc_sse42(const uint8_t *p, size_t n, uint32_t crc) {
        RMQ_CRC_THREE(RMQ_CRC_LONG, rmq_crc_long)
        RMQ_CRC_THREE(RMQ_CRC_SHORT, rmq_crc_short)
        uint64_t wide = crc;
        for (; n >= 8; p += 8, n -= 8) wide = _mm_crc32_u64(wide, rmq_crc_load(p));
        crc = (uint32_t)wide;
        while (n--) crc = _mm_crc32_u8(crc, *p++);
        return crc;
    }

    static int rmq_crc_detect(void) {
        __builtin_cpu_init();
        if (!__builtin_cpu_supports("sse4.2")) return 0;
        rmq_crc_fill_move(rmq_crc_long, RMQ_CRC_LONG);
        rmq_crc_fill_move(rmq_crc_short, RMQ_CRC_SHORT);
        rmq_crc_run = rmq_crc_sse42;
        return 1;
    }
    #else
    static int rmq_crc_detect(void) { return 0; }
    #endif

    static int rmq_crc_prepare(void) {
        for (int b = 0; b < 256; b++) {
            uint32_t crc = (uint32_t)b;
            for (int bit = 0; bit < 8; bit++)
                crc = crc & 1 ? crc >> 1 ^ RMQ_CRC_POLYNOMIAL : crc >> 1;
            rmq_crc_slice[0][b] = crc;
        }
        for (int k = 1; k < 8; k++)
            for (int b = 0; b < 256; b++) {
                uint32_t crc = rmq_crc_slice[k - 1][b];
                rmq_crc_slice[k][b] = crc >> 8 ^ rmq_crc_slice[0][crc & 255];
            }
        return rmq_crc_detect();
    }
    """
    int rmq_crc_prepare() nogil
    unsigned int rmq_crc_run(const unsigned char* p, size_t n, unsigned int crc) noexcept nogil
    unsigned int rmq_crc_table(const unsigned char* p, size_t n, unsigned int crc) noexcept nogil


_HARDWARE = bool(rmq_crc_prepare())


cdef unsigned int crc32c_raw(
    const unsigned char* p, size_t n, unsigned int value
) noexcept nogil:
    return ~rmq_crc_run(p, n, ~value)


def crc32c(data, unsigned int value=0):
    """Return the CRC-32C of `data` (RFC 3720 12.1).

    `value` is the checksum of the bytes that came before, so that
    `crc32c(b, crc32c(a)) == crc32c(a + b)`. Raises OverflowError when it is not a u32.
    """
    cdef Py_buffer view
    if PyBytes_CheckExact(data):
        return crc32c_raw(
            <const unsigned char*>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), value
        )
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return crc32c_raw(<const unsigned char*>view.buf, <size_t>view.len, value)
    finally:
        PyBuffer_Release(&view)


def _by_table(bytes data):
    """Return the checksum as a processor without the instruction computes it."""
    return ~rmq_crc_table(
        <const unsigned char*>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), 0xFFFFFFFF
    ) & 0xFFFFFFFF
