# The checksum for other kernels: no object, no GIL. `value` as in `crc32c`.
cdef unsigned int crc32c_raw(const unsigned char* p, size_t n, unsigned int value) noexcept nogil
