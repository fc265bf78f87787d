// Bounds the memory that SQLite allocates on one thread, and the time in which it may allocate it.
// sqlite3_hard_heap_limit64() applies to the whole process: a query that reached it would make all writes fail, and it
// needs memory statistics, whose lock every allocation would have to take.
#include "sandbox.h"

static sqlite3_mem_methods base;

// 0: this thread has no budget.
static _Thread_local int64_t budget;
static _Thread_local int64_t used;
static _Thread_local int64_t most_used;
static _Thread_local int (*is_over)(const void *);
static _Thread_local const void *watch;

// What an allocation takes in addition to its bytes: SQLite's record of its size, malloc's, and rounding. Sorting makes
// millions of small allocations.
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
    if (used + bytes + OVERHEAD > budget || reprise_is_over()) return 0;
    return note(base.xMalloc(bytes));
}

static void budget_free(void *memory) {
    if (budget && memory) used -= cost(memory);
    base.xFree(memory);
}

static void *budget_realloc(void *memory, int bytes) {
    if (!budget) return base.xRealloc(memory, bytes);
    int64_t before = memory ? cost(memory) : 0;
    if (used - before + bytes + OVERHEAD > budget || reprise_is_over()) return 0;
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

void reprise_enter_sandbox(int64_t bytes, int (*over)(const void *), const void *context) {
    budget = bytes;
    used = 0;
    most_used = 0;
    is_over = over;
    watch = context;
}

int64_t reprise_leave_sandbox(void) {
    budget = 0;
    is_over = 0;
    return most_used;
}

int reprise_is_over(void) { return is_over && is_over(watch); }
