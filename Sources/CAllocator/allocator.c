// The C library's allocator: see include/allocator.h.
#include "allocator.h"

#if defined(__GLIBC__) || defined(__linux__)
#include <malloc.h>
#endif

void reprise_limit_malloc(void) {
#ifdef __GLIBC__
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, 1024 * 1024);
    mallopt(M_TRIM_THRESHOLD, 4 * 1024 * 1024);
#endif
}

void reprise_trim_malloc(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}
