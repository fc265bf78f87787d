// A disk whose power can be cut: SQLite's own file system, which also remembers what was never synced.
#ifndef REPRISE_POWER_CUT_H
#define REPRISE_POWER_CUT_H

#include <stdint.h>

/// A folder whose files are recorded. Its power is cut at a chosen moment; from then on every change fails.
///
/// What would be on a disk then is less than what the files contain: writes, truncations and file names become durable
/// only by a sync. A file's sync makes its own content durable. Names that came or went become durable when the folder
/// is synced, which SQLite does with the first sync of a log or journal and with some deletions.
typedef struct power_cut_disk power_cut_disk;

/// What happens to changes that were not synced. Each is possible on a real disk.
typedef enum {
    /// All are lost.
    POWER_CUT_LOSES_ALL,
    /// All arrived.
    POWER_CUT_KEEPS_ALL,
    /// They arrived in their order, across all files, up to some point; the last one is torn.
    POWER_CUT_KEEPS_FIRST,
    /// Each arrived or did not, in any order.
    POWER_CUT_REORDERS,
    /// Each sector of 512 bytes arrived or did not.
    POWER_CUT_TEARS,
    /// As the one before, and sectors that were under way contain anything.
    POWER_CUT_SCRAMBLES,
    POWER_CUT_KINDS
} power_cut_kind;

/// Puts the recording file system before SQLite's own, for all connections opened from now on; files outside recorded
/// folders are not affected. Must be called once, after SQLite was configured. @return a result code.
int power_cut_install(void);

/// Begins to record a folder. All that is in it now is durable.
/// @param after_changes the number of changes (write, truncation, sync, creation, deletion) after which the power is
///   cut; the next one is under way at that moment.
/// @return null when there are too many disks at once, or the folder cannot be read.
power_cut_disk *power_cut_begin(const char *folder, uint64_t after_changes);

/// From now on, syncs are ignored: a disk that lies, to see that this is noticed.
void power_cut_ignore_syncs(power_cut_disk *disk);

/// Cuts the power now unless it is cut already.
void power_cut_now(power_cut_disk *disk);

int power_cut_is_off(power_cut_disk *disk);

/// Changes so far.
uint64_t power_cut_changes(power_cut_disk *disk);

/// Writes what is on the disk after the cut into another folder, which must exist: a different disk for each seed.
/// @return 0, or -1 when it could not be written.
int power_cut_write(power_cut_disk *disk, power_cut_kind kind, uint64_t seed, const char *folder);

/// Ends the recording. All files in the folder must be closed.
void power_cut_end(power_cut_disk *disk);

#endif
