// The C library's allocator, which Swift's Glibc module does not show.
#ifndef REPRISE_ALLOCATOR_H
#define REPRISE_ALLOCATOR_H

/// Keeps the allocator from holding on to memory nobody uses. To be called before there are threads.
///
/// glibc gives each thread an arena of its own, and none gives memory back to another; two are enough for this
/// program. What is large comes from mmap and goes back at once. Does nothing with another C library.
void reprise_limit_malloc(void);

/// Gives memory that is free to use but still held back to the system: milliseconds, so not on a request's way.
void reprise_trim_malloc(void);

#endif
