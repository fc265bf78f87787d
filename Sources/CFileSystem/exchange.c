// Exchanges two files. https://man7.org/linux/man-pages/man2/rename.2.html
#define _GNU_SOURCE
#include "exchange.h"
#include <fcntl.h>
#include <stdio.h>

int reprise_exchange_files(const char *a, const char *b) {
    return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}
