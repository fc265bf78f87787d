// The C library's allocator, which Swift's Glibc module does not show.
#ifndef REPRISE_ALLOCATOR_H
#define REPRISE_ALLOCATOR_H

/// Keeps the allocator from holding on to memory nobody uses. Must be called before there are threads.
///
/// glibc gives each thread an arena of its own, and none gives memory back to another; two are enough for this program.
/// Large blocks come from mmap and go back at once. Does nothing with another C library.
void reprise_limit_malloc(void);

/// Returns free memory that the allocator still holds to the system. It takes milliseconds, so do not call it during a
/// request.
void reprise_trim_malloc(void);

#endif
