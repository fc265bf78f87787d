// The C library's allocator, which Swift's Glibc module does not expose.
#ifndef REPRISE_ALLOCATOR_H
#define REPRISE_ALLOCATOR_H

/// Keeps the allocator from holding on to unused memory. Must be called before any thread is started.
///
/// glibc gives each thread its own arena, and arenas do not share free memory; two are enough for this program. Large
/// blocks come from mmap and are returned immediately. Does nothing with another C library.
void reprise_limit_malloc(void);

/// Returns free memory that the allocator still holds to the system. It takes milliseconds, so do not call it during a
/// request.
void reprise_trim_malloc(void);

#endif
