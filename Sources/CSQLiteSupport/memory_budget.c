// A bound on the memory SQLite takes on one thread. sqlite3_hard_heap_limit64() is one for the process: a query that
// reached it would make everyone's writes fail, and it needs the statistics whose lock every allocation would pass
// through.
#include "sandbox.h"

static sqlite3_mem_methods base;

// 0: this thread has no budget.
static _Thread_local int64_t budget;
static _Thread_local int64_t used;
static _Thread_local int64_t most_used;

// What an allocation takes besides its bytes: SQLite's note of its size, malloc's, and what rounding adds. Sorting
// makes millions of small ones.
enum { OVERHEAD = 32 };

static int64_t cost(void *memory) { return base.xSize(memory) + OVERHEAD; }

static void *note(void *memory) {
    if (memory) {
        used += cost(memory);
        if (used > most_used) most_used = used;
    }
    return memory;
}

static void *budget_malloc(int bytes) {
    if (!budget) return base.xMalloc(bytes);
    if (used + bytes + OVERHEAD > budget) return 0;
    return note(base.xMalloc(bytes));
}

static void budget_free(void *memory) {
    if (budget && memory) used -= cost(memory);
    base.xFree(memory);
}

static void *budget_realloc(void *memory, int bytes) {
    if (!budget) return base.xRealloc(memory, bytes);
    int64_t before = memory ? cost(memory) : 0;
    if (used - before + bytes + OVERHEAD > budget) return 0;
    void *resized = base.xRealloc(memory, bytes);
    if (resized) used -= before;
    return note(resized);
}

int reprise_install_memory_budget(void) {
    int code = sqlite3_config(SQLITE_CONFIG_GETMALLOC, &base);
    if (code != SQLITE_OK) return code;
    sqlite3_mem_methods methods = base;
    methods.xMalloc = budget_malloc;
    methods.xFree = budget_free;
    methods.xRealloc = budget_realloc;
    return sqlite3_config(SQLITE_CONFIG_MALLOC, &methods);
}

void reprise_begin_memory_budget(int64_t bytes) {
    budget = bytes;
    used = 0;
    most_used = 0;
}

int64_t reprise_end_memory_budget(void) {
    budget = 0;
    return most_used;
}
