// Text functions that take time in proportion to their text: see sandbox.h. Their results are those of SQLite's own.
// https://sqlite.org/lang_corefunc.html
#define _GNU_SOURCE
#include "sandbox.h"
#include <string.h>

typedef const unsigned char *text;

static int is_null(int count, sqlite3_value **values) {
    for (int i = 0; i < count; i++)
        if (sqlite3_value_type(values[i]) == SQLITE_NULL) return 1;
    return 0;
}

/// Characters in `bytes` bytes of UTF-8, as SQLite counts them: bytes that continue none.
static sqlite3_int64 characters(text start, size_t bytes) {
    sqlite3_int64 count = 0;
    for (size_t i = 0; i < bytes; i++) count += (start[i] & 0xC0) != 0x80;
    return count;
}

/// instr(X, Y): the place of Y in X from 1, 0 for none; in bytes when both are blobs, else in characters.
static void instr(sqlite3_context *context, int count, sqlite3_value **values) {
    if (is_null(count, values)) return;
    // Asking a blob for its text would change it for the rest of the statement. Its bytes are that text.
    int hay_is_blob = sqlite3_value_type(values[0]) == SQLITE_BLOB;
    int needle_is_blob = sqlite3_value_type(values[1]) == SQLITE_BLOB;
    text hay = hay_is_blob ? sqlite3_value_blob(values[0]) : sqlite3_value_text(values[0]);
    text needle = needle_is_blob ? sqlite3_value_blob(values[1]) : sqlite3_value_text(values[1]);
    size_t hay_bytes = sqlite3_value_bytes(values[0]), needle_bytes = sqlite3_value_bytes(values[1]);
    if (needle_bytes == 0) {
        sqlite3_result_int64(context, 1);
        return;
    }
    // An empty blob has no address.
    if (hay_bytes == 0) {
        sqlite3_result_int64(context, 0);
        return;
    }
    if (!hay || !needle) {
        sqlite3_result_error_nomem(context);
        return;
    }
    int is_text = !(hay_is_blob && needle_is_blob);
    // In a text a match begins where a character does, or at its very beginning.
    int is_only_first = is_text && (needle[0] & 0xC0) == 0x80;
    text found = memmem(hay, is_only_first && needle_bytes < hay_bytes ? needle_bytes : hay_bytes, needle, needle_bytes);
    size_t before = found ? (size_t)(found - hay) : 0;
    sqlite3_int64 skipped = is_text ? characters(hay + 1, before) : (sqlite3_int64)before;
    sqlite3_result_int64(context, found ? skipped + 1 : 0);
}

/// replace(X, Y, Z): X with each Y replaced by Z; X itself for an empty Y.
static void replace(sqlite3_context *context, int count, sqlite3_value **values) {
    if (is_null(2, values)) return;
    text in = sqlite3_value_text(values[0]);
    text old = sqlite3_value_text(values[1]);
    if (!in || !old) {
        sqlite3_result_error_nomem(context);
        return;
    }
    // SQLite, too, treats a text that begins with a zero byte as empty, and does not look at Z then.
    if (old[0] == 0) {
        sqlite3_result_value(context, values[0]);
        return;
    }
    if (is_null(count, values)) return;
    text new = sqlite3_value_text(values[2]);
    if (!new) {
        sqlite3_result_error_nomem(context);
        return;
    }
    size_t in_bytes = sqlite3_value_bytes(values[0]), old_bytes = sqlite3_value_bytes(values[1]);
    size_t new_bytes = sqlite3_value_bytes(values[2]);
    sqlite3_uint64 matches = 0;
    text end = in + in_bytes;
    for (text at = in; (at = memmem(at, end - at, old, old_bytes)); at += old_bytes) matches++;
    sqlite3_uint64 bytes = in_bytes - matches * old_bytes + matches * new_bytes;
    if (bytes > (sqlite3_uint64)sqlite3_limit(sqlite3_context_db_handle(context), SQLITE_LIMIT_LENGTH, -1)) {
        sqlite3_result_error_toobig(context);
        return;
    }
    char *out = sqlite3_malloc64(bytes + 1), *to = out;
    if (!out) {
        sqlite3_result_error_nomem(context);
        return;
    }
    text from = in;
    for (text at = in; (at = memmem(at, end - at, old, old_bytes)); at += old_bytes, from = at) {
        memcpy(to, from, at - from);
        to += at - from;
        memcpy(to, new, new_bytes);
        to += new_bytes;
    }
    memcpy(to, from, end - from);
    sqlite3_result_text64(context, out, bytes, sqlite3_free, SQLITE_UTF8);
}

enum { TRIM_LEFT = 1, TRIM_RIGHT = 2 };

/// Bytes of the character at `at`, which ends before `end`: SQLite takes a byte and those that continue it.
static size_t character_bytes(text at, text end) {
    text next = at + 1;
    if (*at >= 0xC0)
        while (next < end && (*next & 0xC0) == 0x80) next++;
    return next - at;
}

/// Bytes at one end of a text that are one of the characters in a set; 0 for none.
static size_t trimmed(text start, size_t bytes, text set, text set_end, int side) {
    for (text at = set; at < set_end; at += character_bytes(at, set_end)) {
        size_t length = character_bytes(at, set_end);
        text place = side == TRIM_LEFT ? start : start + bytes - length;
        if (length <= bytes && memcmp(place, at, length) == 0) return length;
    }
    return 0;
}

/// trim(X), trim(X, Y) and those of one side: X without the characters of Y, or blanks, at its ends.
static void trim(sqlite3_context *context, int count, sqlite3_value **values) {
    if (is_null(count, values)) return;
    int *configuration = sqlite3_user_data(context);
    text start = sqlite3_value_text(values[0]);
    text set = count == 2 ? sqlite3_value_text(values[1]) : (text) " ";
    if (!start || !set) {
        sqlite3_result_error_nomem(context);
        return;
    }
    size_t bytes = sqlite3_value_bytes(values[0]);
    // Like SQLite, up to a zero byte.
    size_t set_bytes = strlen((const char *)set);
    if (set_bytes > (size_t)configuration[1]) {
        sqlite3_result_error(context, "trim: the set of characters is too long", -1);
        return;
    }
    text set_end = set + set_bytes;
    size_t length;
    if (configuration[0] & TRIM_LEFT)
        while (bytes && (length = trimmed(start, bytes, set, set_end, TRIM_LEFT))) start += length, bytes -= length;
    if (configuration[0] & TRIM_RIGHT)
        while (bytes && (length = trimmed(start, bytes, set, set_end, TRIM_RIGHT))) bytes -= length;
    sqlite3_result_text64(context, (const char *)start, bytes, SQLITE_TRANSIENT, SQLITE_UTF8);
}

int reprise_replace_quadratic_functions(sqlite3 *db, int max_set_bytes) {
    static const struct {
        const char *name;
        int arguments, sides;
        void (*function)(sqlite3_context *, int, sqlite3_value **);
    } all[] = {
        {"instr", 2, 0, instr},
        {"replace", 3, 0, replace},
        {"trim", 1, TRIM_LEFT | TRIM_RIGHT, trim},
        {"trim", 2, TRIM_LEFT | TRIM_RIGHT, trim},
        {"ltrim", 1, TRIM_LEFT, trim},
        {"ltrim", 2, TRIM_LEFT, trim},
        {"rtrim", 1, TRIM_RIGHT, trim},
        {"rtrim", 2, TRIM_RIGHT, trim},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        int *configuration = sqlite3_malloc(2 * sizeof(int));
        if (!configuration) return SQLITE_NOMEM;
        configuration[0] = all[i].sides;
        configuration[1] = max_set_bytes;
        // Innocuous, as SQLite's own are: views may use them with an untrusted schema.
        int code = sqlite3_create_function_v2(
            db, all[i].name, all[i].arguments, SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, configuration,
            all[i].function, 0, 0, sqlite3_free);
        if (code != SQLITE_OK) return code;
    }
    return SQLITE_OK;
}
