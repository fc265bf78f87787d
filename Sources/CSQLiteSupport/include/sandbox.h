// What an ad-hoc query needs from SQLite in C: a bound on its memory, and functions whose time is bounded.
#ifndef REPRISE_SANDBOX_H
#define REPRISE_SANDBOX_H

#include <sqlite3.h>
#include <stdint.h>

/// Puts the accounting below between SQLite and its allocator. Must be called once, before any connection is opened.
/// @return a result code.
int reprise_install_memory_budget(void);

/// From here on SQLite gets at most `bytes` of memory on this thread, counted from 0; above it allocations fail, and
/// with them the statement (SQLITE_NOMEM). Other threads are not affected. Whatever is allocated under a budget should
/// be freed under it: open the connection after, and close it before reprise_end_memory_budget().
void reprise_begin_memory_budget(int64_t bytes);

/// Ends the budget of this thread.
/// @return the most bytes in use at once since it began.
int64_t reprise_end_memory_budget(void);

/// Replaces instr(), replace(), trim(), ltrim() and rtrim() of a connection by functions with the same results.
///
/// SQLite looks at the clock between instructions only, and a call of its own functions is one instruction whose time
/// is the product of two lengths: minutes for texts of a megabyte. These take time in proportion to the text; a set of
/// characters to trim may have `max_set_bytes`.
/// @return a result code.
int reprise_replace_quadratic_functions(sqlite3 *db, int max_set_bytes);

#endif
