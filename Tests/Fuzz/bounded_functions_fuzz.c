// libFuzzer: the text functions of Sources/CSQLiteSupport/bounded_functions.c against those of SQLite that they replace.
//
// An input is a call: the function, the types of its arguments, and their bytes. Both connections must answer the same,
// with the same type, or fail with the same code.
#include "sandbox.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FUNCTIONS = 11, MAX_ARGUMENTS = 3, MAX_SET_BYTES = 100, MAX_PATTERN_BYTES = 100 };

static const struct {
    const char *sql;
    int arguments;
} functions[FUNCTIONS] = {
    {"SELECT like(?1, ?2)", 2},  {"SELECT like(?1, ?2, ?3)", 3},    {"SELECT glob(?1, ?2)", 2},
    {"SELECT instr(?1, ?2)", 2}, {"SELECT replace(?1, ?2, ?3)", 3}, {"SELECT trim(?1)", 1},
    {"SELECT trim(?1, ?2)", 2},  {"SELECT ltrim(?1)", 1},           {"SELECT ltrim(?1, ?2)", 2},
    {"SELECT rtrim(?1)", 1},     {"SELECT rtrim(?1, ?2)", 2},
};

static sqlite3_stmt *statements[2][FUNCTIONS];

static void require(int condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

static void prepare(void) {
    require(reprise_install_memory_budget() == SQLITE_OK, "the memory budget");
    for (int own = 0; own < 2; own++) {
        sqlite3 *db;
        require(sqlite3_open(":memory:", &db) == SQLITE_OK, "a connection");
        sqlite3_limit(db, SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_PATTERN_BYTES);
        sqlite3_limit(db, SQLITE_LIMIT_LENGTH, 1 << 16);
        if (own) require(reprise_replace_quadratic_functions(db, MAX_SET_BYTES) == SQLITE_OK, "the functions");
        for (int i = 0; i < FUNCTIONS; i++)
            require(
                sqlite3_prepare_v2(db, functions[i].sql, -1, &statements[own][i], 0) == SQLITE_OK, functions[i].sql);
    }
}

static void bind(sqlite3_stmt *statement, int index, int type, const uint8_t *bytes, int count) {
    switch (type) {
    case 0: sqlite3_bind_null(statement, index); break;
    case 1: sqlite3_bind_blob(statement, index, count ? (const void *)bytes : "", count, SQLITE_TRANSIENT); break;
    case 2: sqlite3_bind_int64(statement, index, count ? bytes[0] * (count % 2 ? 1 : -1001) : 0); break;
    case 3: sqlite3_bind_double(statement, index, count ? bytes[0] / 8.0 : 0); break;
    default: sqlite3_bind_text(statement, index, count ? (const char *)bytes : "", count, SQLITE_TRANSIENT);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int is_prepared;
    if (!is_prepared) {
        prepare();
        is_prepared = 1;
    }
    if (size < 6) return 0;
    int function = data[0] % FUNCTIONS;
    const uint8_t *header = data + 1;
    data += 6;
    size -= 6;
    // Where the second and the third argument begin.
    size_t ends[MAX_ARGUMENTS] = {header[3] % (size + 1), 0, size};
    ends[1] = ends[0] + header[4] % (size - ends[0] + 1);
    if (functions[function].arguments == 2) ends[1] = size;
    if (functions[function].arguments == 1) ends[0] = size;
    // A set of characters may be shorter than SQLite allows.
    if (function >= 5 && ends[1] - ends[0] > MAX_SET_BYTES) return 0;

    int codes[2];
    for (int own = 0; own < 2; own++) {
        sqlite3_stmt *statement = statements[own][function];
        for (int i = 0; i < functions[function].arguments; i++) {
            size_t start = i ? ends[i - 1] : 0;
            bind(statement, i + 1, header[i] % 12, data + start, (int)(ends[i] - start));
        }
        codes[own] = sqlite3_step(statement);
    }
    sqlite3_stmt *theirs = statements[0][function], *ours = statements[1][function];
    int is_same = codes[0] == codes[1];
    if (is_same && codes[0] == SQLITE_ROW) {
        int bytes = sqlite3_column_bytes(theirs, 0);
        is_same = sqlite3_column_type(theirs, 0) == sqlite3_column_type(ours, 0)
            && bytes == sqlite3_column_bytes(ours, 0)
            && (!bytes || memcmp(sqlite3_column_blob(theirs, 0), sqlite3_column_blob(ours, 0), bytes) == 0);
    }
    if (!is_same) {
        fprintf(stderr, "%s: SQLite answers %d %s, ours %d %s\n", functions[function].sql, codes[0],
                (const char *)sqlite3_column_text(theirs, 0), codes[1], (const char *)sqlite3_column_text(ours, 0));
        abort();
    }
    sqlite3_reset(theirs);
    sqlite3_reset(ours);
    return 0;
}
