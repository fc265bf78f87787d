// The recording file system: passes everything to SQLite's own, and keeps what was not synced.
// https://sqlite.org/vfs.html
//
// Real files hold what the running program sees. Beside them, each file has its durable bytes in memory, and the
// changes since its last sync in their order. Shared memory (-shm) is not recorded, because no disk keeps it.
#include "power_cut.h"
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECTOR_BYTES = 512, MAX_DISKS = 64, MAX_NAMES = 32, MAX_PATH_BYTES = 512 };

typedef struct change {
    struct change *next;
    uint64_t number;
    int is_truncation;
    int64_t offset;  // of a truncation: the size
    int64_t bytes;
    unsigned char *data;
} change;

/// The content of a file, whatever its name is.
typedef struct content {
    struct content *next;
    unsigned char *durable;
    int64_t durable_bytes;
    change *first, **last;
} content;

/// What a name means: to the program, and on the disk.
typedef struct {
    char path[MAX_PATH_BYTES];
    content *current, *durable;
    /// Number of the latest change of what it means.
    uint64_t changed;
} name;

struct power_cut_disk {
    char folder[MAX_PATH_BYTES];
    name names[MAX_NAMES];
    int name_count;
    content *contents;
    uint64_t changes, after_changes;
    int is_off, ignores_syncs;
};

typedef struct {
    sqlite3_file base;
    power_cut_disk *disk;
    content *content;
    /// A new log or journal: its first sync also syncs the folder, as in SQLite's own file system.
    int syncs_folder;
} recorded;

static sqlite3_vfs *real, recording;
static size_t own_bytes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static power_cut_disk *disks[MAX_DISKS];

static sqlite3_file *real_of(sqlite3_file *file) { return (sqlite3_file *)((char *)file + own_bytes); }

static void *allocated(void *memory) {
    if (!memory) abort();
    return memory;
}

// The disk's records. All with the lock held.

static power_cut_disk *disk_of(const char *path) {
    if (!path) return 0;
    for (int i = 0; i < MAX_DISKS; i++) {
        if (!disks[i]) continue;
        size_t length = strlen(disks[i]->folder);
        if (strncmp(path, disks[i]->folder, length) == 0 && path[length] == '/') return disks[i];
    }
    return 0;
}

static name *name_of(power_cut_disk *disk, const char *path) {
    for (int i = 0; i < disk->name_count; i++)
        if (strcmp(disk->names[i].path, path) == 0) return &disk->names[i];
    if (disk->name_count == MAX_NAMES || strlen(path) >= MAX_PATH_BYTES) abort();
    name *added = &disk->names[disk->name_count++];
    memset(added, 0, sizeof *added);
    strcpy(added->path, path);
    return added;
}

static content *new_content(power_cut_disk *disk) {
    content *added = allocated(calloc(1, sizeof *added));
    added->last = &added->first;
    added->next = disk->contents;
    disk->contents = added;
    return added;
}

static void resize(unsigned char **bytes, int64_t *size, int64_t new_size) {
    if (new_size > *size) {
        *bytes = allocated(realloc(*bytes, new_size));
        memset(*bytes + *size, 0, new_size - *size);
    }
    *size = new_size;
}

static void apply(const change *change, unsigned char **bytes, int64_t *size) {
    if (change->is_truncation) {
        resize(bytes, size, change->offset);
        return;
    }
    if (change->offset + change->bytes > *size) resize(bytes, size, change->offset + change->bytes);
    memcpy(*bytes + change->offset, change->data, change->bytes);
}

static void free_changes(content *content) {
    for (change *at = content->first, *next; at; at = next) {
        next = at->next;
        free(at->data);
        free(at);
    }
    content->first = 0;
    content->last = &content->first;
}

static void record(power_cut_disk *disk, content *content, int is_truncation, int64_t offset, const void *data,
                   int64_t bytes) {
    change *added = allocated(calloc(1, sizeof *added));
    added->number = disk->changes;
    added->is_truncation = is_truncation;
    added->offset = offset;
    added->bytes = bytes;
    if (bytes) {
        added->data = allocated(malloc(bytes));
        memcpy(added->data, data, bytes);
    }
    *content->last = added;
    content->last = &added->next;
}

static void sync_content(content *content) {
    for (change *at = content->first; at; at = at->next) apply(at, &content->durable, &content->durable_bytes);
    free_changes(content);
}

static void sync_folder(power_cut_disk *disk) {
    for (int i = 0; i < disk->name_count; i++) disk->names[i].durable = disk->names[i].current;
}

/// Counts a change. @return whether the power is on after it.
static int count(power_cut_disk *disk) {
    if (disk->is_off) return 0;
    if (++disk->changes > disk->after_changes) disk->is_off = 1;
    return !disk->is_off;
}

// A recorded file.

static int close_file(sqlite3_file *file) { return real_of(file)->pMethods->xClose(real_of(file)); }

static int read_file(sqlite3_file *file, void *to, int bytes, sqlite3_int64 offset) {
    return real_of(file)->pMethods->xRead(real_of(file), to, bytes, offset);
}

static int write_file(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 offset) {
    recorded *own = (recorded *)file;
    pthread_mutex_lock(&lock);
    int was_off = own->disk->is_off;
    int is_on = count(own->disk);
    // The one that is under way when the power is cut may arrive, too.
    if (!was_off) record(own->disk, own->content, 0, offset, data, bytes);
    pthread_mutex_unlock(&lock);
    return is_on ? real_of(file)->pMethods->xWrite(real_of(file), data, bytes, offset) : SQLITE_IOERR_WRITE;
}

static int truncate_file(sqlite3_file *file, sqlite3_int64 size) {
    recorded *own = (recorded *)file;
    pthread_mutex_lock(&lock);
    int was_off = own->disk->is_off;
    int is_on = count(own->disk);
    if (!was_off) record(own->disk, own->content, 1, size, 0, 0);
    pthread_mutex_unlock(&lock);
    return is_on ? real_of(file)->pMethods->xTruncate(real_of(file), size) : SQLITE_IOERR_TRUNCATE;
}

/// The real file is not synced: nobody cuts its power, and the tests are faster.
static int sync_file(sqlite3_file *file, int flags) {
    (void)flags;
    recorded *own = (recorded *)file;
    pthread_mutex_lock(&lock);
    int is_on = count(own->disk);
    if (is_on && !own->disk->ignores_syncs) {
        sync_content(own->content);
        if (own->syncs_folder) sync_folder(own->disk);
        own->syncs_folder = 0;
    }
    pthread_mutex_unlock(&lock);
    return is_on ? SQLITE_OK : SQLITE_IOERR_FSYNC;
}

static int file_size(sqlite3_file *file, sqlite3_int64 *size) {
    return real_of(file)->pMethods->xFileSize(real_of(file), size);
}
static int lock_file(sqlite3_file *file, int level) { return real_of(file)->pMethods->xLock(real_of(file), level); }
static int unlock_file(sqlite3_file *file, int level) {
    return real_of(file)->pMethods->xUnlock(real_of(file), level);
}
static int check_reserved_lock(sqlite3_file *file, int *is_locked) {
    return real_of(file)->pMethods->xCheckReservedLock(real_of(file), is_locked);
}
static int control_file(sqlite3_file *file, int code, void *argument) {
    return real_of(file)->pMethods->xFileControl(real_of(file), code, argument);
}
static int sector_size(sqlite3_file *file) { return real_of(file)->pMethods->xSectorSize(real_of(file)); }
static int characteristics(sqlite3_file *file) {
    return real_of(file)->pMethods->xDeviceCharacteristics(real_of(file));
}
static int map_shared(sqlite3_file *file, int region, int bytes, int extends, void volatile **address) {
    return real_of(file)->pMethods->xShmMap(real_of(file), region, bytes, extends, address);
}
static int lock_shared(sqlite3_file *file, int offset, int slots, int flags) {
    return real_of(file)->pMethods->xShmLock(real_of(file), offset, slots, flags);
}
static void shared_barrier(sqlite3_file *file) { real_of(file)->pMethods->xShmBarrier(real_of(file)); }
static int unmap_shared(sqlite3_file *file, int deletes) {
    return real_of(file)->pMethods->xShmUnmap(real_of(file), deletes);
}

/// Version 2: with shared memory, without memory mapping.
static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = close_file,
    .xRead = read_file,
    .xWrite = write_file,
    .xTruncate = truncate_file,
    .xSync = sync_file,
    .xFileSize = file_size,
    .xLock = lock_file,
    .xUnlock = unlock_file,
    .xCheckReservedLock = check_reserved_lock,
    .xFileControl = control_file,
    .xSectorSize = sector_size,
    .xDeviceCharacteristics = characteristics,
    .xShmMap = map_shared,
    .xShmLock = lock_shared,
    .xShmBarrier = shared_barrier,
    .xShmUnmap = unmap_shared,
};

// The file system.

static int open_file(sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags, int *out_flags) {
    (void)vfs;
    pthread_mutex_lock(&lock);
    power_cut_disk *disk = disk_of(path);
    pthread_mutex_unlock(&lock);
    if (!disk) return real->xOpen(real, path, file, flags, out_flags);

    recorded *own = (recorded *)file;
    memset(own, 0, own_bytes);
    pthread_mutex_lock(&lock);
    int code = SQLITE_OK;
    name *found = name_of(disk, path);
    int is_new = !found->current;
    if (is_new) {
        if (!(flags & SQLITE_OPEN_CREATE) || !count(disk)) code = SQLITE_CANTOPEN;
    }
    if (code == SQLITE_OK) code = real->xOpen(real, path, real_of(file), flags, out_flags);
    if (code == SQLITE_OK) {
        if (is_new) {
            found->current = new_content(disk);
            found->changed = disk->changes;
        }
        own->disk = disk;
        own->content = found->current;
        own->syncs_folder = is_new && (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL));
        own->base.pMethods = &methods;
    }
    pthread_mutex_unlock(&lock);
    return code;
}

static int delete_file(sqlite3_vfs *vfs, const char *path, int syncs_folder) {
    (void)vfs;
    pthread_mutex_lock(&lock);
    power_cut_disk *disk = disk_of(path);
    int is_on = 1;
    name *found = disk ? name_of(disk, path) : 0;
    if (found && found->current) {
        int was_off = disk->is_off;
        is_on = count(disk);
        if (!was_off) {
            found->current = 0;
            found->changed = disk->changes;
        }
        if (is_on && syncs_folder && !disk->ignores_syncs) sync_folder(disk);
    }
    pthread_mutex_unlock(&lock);
    return is_on ? real->xDelete(real, path, syncs_folder) : SQLITE_IOERR_DELETE;
}

int power_cut_install(void) {
    real = sqlite3_vfs_find(0);
    if (!real) return SQLITE_NOTFOUND;
    own_bytes = (sizeof(recorded) + 15) / 16 * 16;
    recording = *real;
    recording.pNext = 0;
    recording.zName = "power-cut";
    recording.szOsFile = (int)own_bytes + real->szOsFile;
    recording.xOpen = open_file;
    recording.xDelete = delete_file;
    return sqlite3_vfs_register(&recording, 1);
}

// Disks.

static int is_recorded_name(const char *file) {
    size_t length = strlen(file);
    if (file[0] == '.') return 0;
    if (length > 4 && strcmp(file + length - 4, "-shm") == 0) return 0;
    return length <= 5 || strcmp(file + length - 5, ".lock") != 0;
}

static int read_durable(power_cut_disk *disk, const char *file) {
    char path[2 * MAX_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", disk->folder, file);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (descriptor < 0 || fstat(descriptor, &status) != 0) return -1;
    name *added = name_of(disk, path);
    added->current = added->durable = new_content(disk);
    resize(&added->durable->durable, &added->durable->durable_bytes, status.st_size);
    int64_t done = 0;
    while (done < status.st_size) {
        ssize_t count = read(descriptor, added->durable->durable + done, status.st_size - done);
        if (count <= 0) break;
        done += count;
    }
    close(descriptor);
    return done == status.st_size ? 0 : -1;
}

power_cut_disk *power_cut_begin(const char *folder, uint64_t after_changes) {
    if (strlen(folder) >= MAX_PATH_BYTES / 2) return 0;
    power_cut_disk *disk = allocated(calloc(1, sizeof *disk));
    strcpy(disk->folder, folder);
    disk->after_changes = after_changes;
    DIR *entries = opendir(folder);
    int is_read = entries != 0;
    for (struct dirent *entry; is_read && (entry = readdir(entries));)
        if (is_recorded_name(entry->d_name) && read_durable(disk, entry->d_name) != 0) is_read = 0;
    if (entries) closedir(entries);
    pthread_mutex_lock(&lock);
    int place = 0;
    while (place < MAX_DISKS && disks[place]) place++;
    if (is_read && place < MAX_DISKS) disks[place] = disk;
    else is_read = 0;
    pthread_mutex_unlock(&lock);
    if (is_read) return disk;
    power_cut_end(disk);
    return 0;
}

void power_cut_ignore_syncs(power_cut_disk *disk) {
    pthread_mutex_lock(&lock);
    disk->ignores_syncs = 1;
    pthread_mutex_unlock(&lock);
}

void power_cut_now(power_cut_disk *disk) {
    pthread_mutex_lock(&lock);
    disk->is_off = 1;
    pthread_mutex_unlock(&lock);
}

int power_cut_is_off(power_cut_disk *disk) {
    pthread_mutex_lock(&lock);
    int is_off = disk->is_off;
    pthread_mutex_unlock(&lock);
    return is_off;
}

uint64_t power_cut_changes(power_cut_disk *disk) {
    pthread_mutex_lock(&lock);
    uint64_t changes = disk->changes;
    pthread_mutex_unlock(&lock);
    return changes;
}

/// SplitMix64.
static uint64_t random_number(uint64_t *state) {
    uint64_t mixed = (*state += 0x9E3779B97F4A7C15u);
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    return mixed ^ (mixed >> 31);
}

static int happens(uint64_t *random, unsigned percent) { return random_number(random) % 100 < percent; }

/// Applies the sectors of a write that arrived.
static void apply_torn(const change *change, power_cut_kind kind, unsigned percent, uint64_t *random,
                       unsigned char **bytes, int64_t *size) {
    for (int64_t from = 0, end; from < change->bytes; from = end) {
        int64_t sector = (change->offset + from) / SECTOR_BYTES + 1;
        end = sector * SECTOR_BYTES - change->offset;
        if (end > change->bytes) end = change->bytes;
        int is_under_way = kind == POWER_CUT_SCRAMBLES && happens(random, 10);
        if (!is_under_way && !happens(random, percent)) continue;
        struct change part = *change;
        part.offset += from;
        part.bytes = end - from;
        part.data += from;
        apply(&part, bytes, size);
        // Bytes beside those that were written do not change: SQLITE_IOCAP_POWERSAFE_OVERWRITE.
        for (int64_t i = 0; is_under_way && i < part.bytes; i++)
            (*bytes)[part.offset + i] = (unsigned char)random_number(random);
    }
}

static int write_all(const char *path, const unsigned char *bytes, int64_t size) {
    int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (descriptor < 0) return -1;
    int64_t done = 0;
    while (done < size) {
        ssize_t count = write(descriptor, bytes + done, size - done);
        if (count <= 0) break;
        done += count;
    }
    close(descriptor);
    return done == size ? 0 : -1;
}

int power_cut_write(power_cut_disk *disk, power_cut_kind kind, uint64_t seed, const char *folder) {
    pthread_mutex_lock(&lock);
    uint64_t random = seed;
    unsigned percent = 5 + random_number(&random) % 91;
    // The last change that arrived in order. Those of the last moments before the cut matter most.
    uint64_t back = random_number(&random) % (1u << (random_number(&random) % 12));
    uint64_t last = disk->changes > back ? disk->changes - back : 0;
    int code = 0;
    for (int i = 0; i < disk->name_count; i++) {
        name *at = &disk->names[i];
        int is_renamed = at->current != at->durable
            && (kind == POWER_CUT_KEEPS_ALL || (kind == POWER_CUT_KEEPS_FIRST && at->changed <= last)
                || (kind >= POWER_CUT_REORDERS && happens(&random, percent)));
        content *content = is_renamed ? at->current : at->durable;
        if (!content) continue;
        int64_t size = 0;
        unsigned char *bytes = 0;
        resize(&bytes, &size, content->durable_bytes);
        if (size) memcpy(bytes, content->durable, size);
        for (change *change = content->first; change && kind != POWER_CUT_LOSES_ALL; change = change->next) {
            int is_whole = kind == POWER_CUT_KEEPS_ALL || (kind == POWER_CUT_KEEPS_FIRST && change->number < last)
                || (kind == POWER_CUT_REORDERS && happens(&random, percent))
                || (kind > POWER_CUT_REORDERS && change->is_truncation && happens(&random, percent));
            int is_torn = !change->is_truncation
                && (kind > POWER_CUT_REORDERS || (kind == POWER_CUT_KEEPS_FIRST && change->number == last));
            if (is_whole) apply(change, &bytes, &size);
            else if (is_torn) apply_torn(change, kind, percent, &random, &bytes, &size);
        }
        char path[2 * MAX_PATH_BYTES];
        snprintf(path, sizeof path, "%s%s", folder, at->path + strlen(disk->folder));
        if (write_all(path, bytes, size) != 0) code = -1;
        free(bytes);
    }
    pthread_mutex_unlock(&lock);
    return code;
}

void power_cut_end(power_cut_disk *disk) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_DISKS; i++)
        if (disks[i] == disk) disks[i] = 0;
    pthread_mutex_unlock(&lock);
    for (content *at = disk->contents, *next; at; at = next) {
        next = at->next;
        free_changes(at);
        free(at->durable);
        free(at);
    }
    free(disk);
}
