// The C side of the sandbox for ad-hoc queries: a bound on memory, and functions and files that check a watch.
#ifndef REPRISE_SANDBOX_H
#define REPRISE_SANDBOX_H

#include <sqlite3.h>
#include <stdint.h>

/// Puts the accounting below between SQLite and its allocator. Must be called once, before any connection is opened.
/// @return a result code.
int reprise_install_memory_budget(void);

/// Registers the file system REPRISE_SANDBOX_VFS with SQLite. Must be called once, after
/// reprise_install_memory_budget(). @return a result code.
int reprise_register_sandbox_vfs(void);

/// The file system of a connection in the sandbox. Its temporary files are kept in memory, where the budget counts
/// them, and each read of a file checks the watch first.
#define REPRISE_SANDBOX_VFS "reprise-sandbox"

/// From now on, SQLite gets at most `bytes` of memory on this thread, counted from 0, and none once `is_over(watch)` is
/// true; allocations then fail, and the statement with them (SQLITE_NOMEM). Other threads are not affected. Memory that
/// is allocated in the sandbox should be freed in it: open the connection after this call, and close it before
/// reprise_leave_sandbox().
void reprise_enter_sandbox(int64_t bytes, int (*is_over)(const void *), const void *watch);

/// Ends the sandbox of this thread. @return the peak number of bytes in use since it began.
int64_t reprise_leave_sandbox(void);

/// Whether the work in the sandbox of this thread must end. Always false outside a sandbox.
int reprise_is_over(void);

/// Replaces like(), glob(), instr(), replace(), trim(), ltrim() and rtrim() of a connection by functions with the same
/// results. The operators LIKE and GLOB call the first two.
///
/// SQLite checks the clock only between instructions, and a call of one of its own functions is one instruction, which
/// takes time in proportion to the product of two lengths. Of the replacements, the first two check the watch while
/// they run; the others take time in proportion to the text. A set of characters to trim may have up to
/// `max_set_bytes`. @return a result code.
int reprise_replace_quadratic_functions(sqlite3 *db, int max_set_bytes);

#endif
