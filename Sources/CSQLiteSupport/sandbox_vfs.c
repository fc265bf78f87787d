// The file system of an ad-hoc query: SQLite's own, with two differences. https://sqlite.org/vfs.html
//
// Temporary files are SQLite's in-memory files (the file system "memdb"), so the budget counts them and they cannot
// fill the disk. PRAGMA temp_store = MEMORY would do that too, but then SQLite sorts all rows in one instruction, which
// takes many seconds. With files, it sorts a few megabytes at a time and merges them row by row.
//
// Each read of the database checks the watch. Counting the rows of a table is also a single instruction, and reads all
// pages of an index.
#include "sandbox.h"
#include <stddef.h>

static sqlite3_vfs *disk, *memory;
static sqlite3_vfs sandbox;

/// Follows SQLite's own struct of a file on disk: its methods, with a different one for reading.
typedef struct {
    sqlite3_io_methods methods;
    int (*read)(sqlite3_file *, void *, int, sqlite3_int64);
} watched;

static size_t file_bytes;

static watched *watched_of(sqlite3_file *file) { return (watched *)((char *)file + file_bytes); }

static int read_watched(sqlite3_file *file, void *to, int bytes, sqlite3_int64 offset) {
    if (reprise_is_over()) return SQLITE_INTERRUPT;
    return watched_of(file)->read(file, to, bytes, offset);
}

static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags) {
    (void)vfs;
    // A temporary file is one without a name.
    if (!name) return memory->xOpen(memory, 0, file, flags, out_flags);
    int code = disk->xOpen(disk, name, file, flags, out_flags);
    if (code != SQLITE_OK) return code;
    watched *own = watched_of(file);
    own->methods = *file->pMethods;
    own->read = own->methods.xRead;
    own->methods.xRead = read_watched;
    file->pMethods = &own->methods;
    return code;
}

int reprise_register_sandbox_vfs(void) {
    int code = sqlite3_initialize();
    if (code != SQLITE_OK) return code;
    disk = sqlite3_vfs_find(0);
    memory = sqlite3_vfs_find("memdb");
    if (!disk || !memory) return SQLITE_NOTFOUND;
    size_t largest = disk->szOsFile > memory->szOsFile ? disk->szOsFile : memory->szOsFile;
    file_bytes = (largest + 15) / 16 * 16;
    sandbox = *disk;
    sandbox.zName = REPRISE_SANDBOX_VFS;
    sandbox.pNext = 0;
    sandbox.szOsFile = (int)(file_bytes + sizeof(watched));
    sandbox.xOpen = open_file;
    return sqlite3_vfs_register(&sandbox, 0);
}
