// What Swift's import of the C library lacks.
#pragma once

/// Exchanges two files on one file system in one step, which a crash cannot divide.
/// @return 0, or -1 with errno set: EINVAL if the file system cannot do that.
int reprise_exchange_files(const char *a, const char *b);
