// What a query from outside needs of SQLite in C: a bound on its memory, and functions and files that look at a watch.
#ifndef REPRISE_SANDBOX_H
#define REPRISE_SANDBOX_H

#include <sqlite3.h>
#include <stdint.h>

/// Puts the accounting below between SQLite and its allocator. Must be called once, before any connection is opened.
/// @return a result code.
int reprise_install_memory_budget(void);

/// Makes the file system REPRISE_SANDBOX_VFS known to SQLite. To be called once, after reprise_install_memory_budget().
/// @return a result code.
int reprise_register_sandbox_vfs(void);

/// The file system of a connection in the sandbox. Its temporary files are kept in memory, where the budget counts
/// them, and each read of a file looks at the watch first.
#define REPRISE_SANDBOX_VFS "reprise-sandbox"

/// From here on SQLite gets at most `bytes` of memory on this thread, counted from 0, and none once `is_over` says so
/// of `watch`; then allocations fail, and with them the statement (SQLITE_NOMEM). Other threads are not concerned.
/// Whatever is allocated in the sandbox should be freed in it: open the connection after, and close it before
/// reprise_leave_sandbox().
void reprise_enter_sandbox(int64_t bytes, int (*is_over)(const void *), const void *watch);

/// Ends the sandbox of this thread.
/// @return the most bytes in use at once since it began.
int64_t reprise_leave_sandbox(void);

/// Whether what runs in the sandbox of this thread must end. Never so outside.
int reprise_is_over(void);

/// Replaces like(), glob(), instr(), replace(), trim(), ltrim() and rtrim() of a connection by functions with the same
/// results. The operators LIKE and GLOB call the first two.
///
/// SQLite looks at the clock between instructions only, and a call of its own functions is one instruction whose time
/// is the product of two lengths. Of these, the first two look at the watch as they go; the others take time in
/// proportion to the text. A set of characters to trim may have `max_set_bytes`.
/// @return a result code.
int reprise_replace_quadratic_functions(sqlite3 *db, int max_set_bytes);

#endif
