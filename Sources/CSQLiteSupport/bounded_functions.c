// Text functions that take time in proportion to their text or check the watch while they run: see sandbox.h. Their
// results are the same as those of SQLite's own functions. https://sqlite.org/lang_corefunc.html
#define _GNU_SOURCE
#include "sandbox.h"
#include <string.h>

typedef const unsigned char *text;

static int is_null(int count, sqlite3_value **values) {
    for (int i = 0; i < count; i++)
        if (sqlite3_value_type(values[i]) == SQLITE_NULL) return 1;
    return 0;
}

static void interrupt(sqlite3_context *context) {
    sqlite3_result_error(context, "interrupted", -1);
    sqlite3_result_error_code(context, SQLITE_INTERRUPT);
}

/// Characters in `bytes` bytes of UTF-8, as SQLite counts them: all bytes except continuation bytes.
static sqlite3_int64 characters(text start, size_t bytes) {
    sqlite3_int64 count = 0;
    for (size_t i = 0; i < bytes; i++) count += (start[i] & 0xC0) != 0x80;
    return count;
}

/// instr(X, Y): the position of Y in X, counted from 1, or 0 if there is none; in bytes if both are blobs, otherwise in
/// characters.
static void instr(sqlite3_context *context, int count, sqlite3_value **values) {
    if (reprise_is_over()) {
        interrupt(context);
        return;
    }
    if (is_null(count, values)) return;
    // Reading a blob as text would convert it for the rest of the statement. Its bytes are the same as that text.
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
    // In a text, a match begins where a character begins, or at the start of the text.
    int is_only_first = is_text && (needle[0] & 0xC0) == 0x80;
    text found = memmem(hay, is_only_first && needle_bytes < hay_bytes ? needle_bytes : hay_bytes, needle, needle_bytes);
    size_t before = found ? (size_t)(found - hay) : 0;
    sqlite3_int64 skipped = is_text ? characters(hay + 1, before) : (sqlite3_int64)before;
    sqlite3_result_int64(context, found ? skipped + 1 : 0);
}

/// replace(X, Y, Z): X with each Y replaced by Z; X unchanged if Y is empty.
static void replace(sqlite3_context *context, int count, sqlite3_value **values) {
    if (reprise_is_over()) {
        interrupt(context);
        return;
    }
    if (is_null(2, values)) return;
    text in = sqlite3_value_text(values[0]);
    text old = sqlite3_value_text(values[1]);
    if (!in || !old) {
        sqlite3_result_error_nomem(context);
        return;
    }
    // Like SQLite, this treats a text that begins with a zero byte as empty, and then ignores Z.
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

/// Bytes of the character at `at`, which ends before `end`: like SQLite, a byte and its continuation bytes.
static size_t character_bytes(text at, text end) {
    text next = at + 1;
    if (*at >= 0xC0)
        while (next < end && (*next & 0xC0) == 0x80) next++;
    return next - at;
}

/// Bytes of the character at one end of a text, if it is in a set; otherwise 0.
static size_t trimmed(text start, size_t bytes, text set, text set_end, int side) {
    for (text at = set; at < set_end; at += character_bytes(at, set_end)) {
        size_t length = character_bytes(at, set_end);
        text place = side == TRIM_LEFT ? start : start + bytes - length;
        if (length <= bytes && memcmp(place, at, length) == 0) return length;
    }
    return 0;
}

/// trim(X), trim(X, Y) and the one-sided variants: X without leading and trailing characters of Y, or spaces.
static void trim(sqlite3_context *context, int count, sqlite3_value **values) {
    if (reprise_is_over()) {
        interrupt(context);
        return;
    }
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

/// The special characters of a pattern; 0 if it has none.
typedef struct {
    /// Matches any number of characters, including none.
    unsigned all;
    /// Matches one character.
    unsigned one;
    /// Starts a set of characters.
    unsigned set;
    /// Removes the special meaning of the next character.
    unsigned escape;
    int folds_case;
} rules;

enum { DIFFERS, MATCHES, IS_OVER };

// Between two checks of the watch: a few microseconds.
enum { STEPS_PER_LOOK = 4096 };

/// Reads the character at `at` and moves past it; 0 at the end. Like SQLite, it reads invalid UTF-8 as follows: a stray
/// continuation byte stands for itself, and an invalid code point is U+FFFD.
static unsigned next_character(text *at) {
    unsigned first = *(*at)++;
    if (first < 0xC0) return first;
    unsigned character = first < 0xE0 ? first & 0x1F : first < 0xF0 ? first & 0x0F : first < 0xF8 ? first & 0x07
                       : first < 0xFC ? first & 0x03 : first < 0xFE ? first & 0x01 : 0;
    while ((**at & 0xC0) == 0x80) character = (character << 6) + (*(*at)++ & 0x3F);
    if (character < 0x80 || (character & 0xFFFFF800) == 0xD800 || (character & 0xFFFFFFFE) == 0xFFFE) return 0xFFFD;
    return character;
}

static unsigned lower(unsigned character) {
    return character >= 'A' && character <= 'Z' ? character + ('a' - 'A') : character;
}

/// Whether the set at `*pattern`, after its bracket, contains `character`; moves `*pattern` past the set. A set without
/// an end contains nothing.
static int set_has(text *pattern, unsigned character) {
    unsigned previous = 0;
    int is_in = 0, is_inverted = 0;
    unsigned member = next_character(pattern);
    if (member == '^') is_inverted = 1, member = next_character(pattern);
    // A bracket in the first position is a member.
    if (member == ']') is_in = character == ']', member = next_character(pattern);
    for (; member && member != ']'; member = next_character(pattern)) {
        if (member == '-' && **pattern != ']' && **pattern && previous) {
            member = next_character(pattern);
            if (character >= previous && character <= member) is_in = 1;
            previous = 0;
        } else {
            if (character == member) is_in = 1;
            previous = member;
        }
    }
    return member && is_in != is_inverted;
}

/// Matches the first character of `*string` with the first of `*pattern`, which is not `all`, and moves past both.
static int matches_one(text *pattern, text *string, const rules *rules) {
    unsigned wanted = next_character(pattern);
    int is_literal = 0;
    if (wanted == rules->set && wanted) {
        unsigned found = next_character(string);
        return found && set_has(pattern, found);
    }
    if (wanted == rules->escape && wanted) {
        wanted = next_character(pattern);
        is_literal = 1;
    }
    unsigned found = next_character(string);
    if (!found || !wanted) return 0;
    if (wanted == found) return 1;
    if (!is_literal && wanted == rules->one) return 1;
    return rules->folds_case && wanted < 0x80 && found < 0x80 && lower(wanted) == lower(found);
}

/// Matches both up to their zero bytes. On a mismatch, the latest `all` takes one more character: anything an earlier
/// one could take instead, the latest can take too.
static int match(text pattern, text string, const rules *rules) {
    text after_all = 0, retry = 0;
    for (unsigned steps = 1;; steps++) {
        if (steps % STEPS_PER_LOOK == 0 && reprise_is_over()) return IS_OVER;
        if (*pattern && *pattern == rules->all) {
            after_all = ++pattern;
            retry = string;
            if (!*pattern) return MATCHES;
            continue;
        }
        if (!*pattern && !*string) return MATCHES;
        if (*pattern && *string && matches_one(&pattern, &string, rules)) continue;
        if (!after_all || !*retry) return DIFFERS;
        next_character(&retry);
        string = retry;
        pattern = after_all;
    }
}

/// like(P, X), like(P, X, E) and glob(P, X).
static void pattern(sqlite3_context *context, int count, sqlite3_value **values, rules rules) {
    // SQLite as built by Debian does this (SQLITE_LIKE_DOESNT_MATCH_BLOBS), so this function must too.
    if (sqlite3_compileoption_used("LIKE_DOESNT_MATCH_BLOBS")
        && (sqlite3_value_type(values[0]) == SQLITE_BLOB || sqlite3_value_type(values[1]) == SQLITE_BLOB)) {
        sqlite3_result_int(context, 0);
        return;
    }
    sqlite3 *db = sqlite3_context_db_handle(context);
    if (sqlite3_value_bytes(values[0]) > sqlite3_limit(db, SQLITE_LIMIT_LIKE_PATTERN_LENGTH, -1)) {
        sqlite3_result_error(context, "LIKE or GLOB pattern too complex", -1);
        return;
    }
    if (count == 3) {
        text escape = sqlite3_value_text(values[2]);
        if (!escape) return;
        text end = escape;
        rules.escape = *end ? next_character(&end) : 0;
        if (end == escape || *end) {
            sqlite3_result_error(context, "ESCAPE expression must be a single character", -1);
            return;
        }
        if (rules.escape == rules.all) rules.all = 0;
        if (rules.escape == rules.one) rules.one = 0;
    }
    text wanted = sqlite3_value_text(values[0]), found = sqlite3_value_text(values[1]);
    if (!wanted || !found) return;
    int outcome = reprise_is_over() ? IS_OVER : match(wanted, found, &rules);
    if (outcome == IS_OVER) interrupt(context);
    else sqlite3_result_int(context, outcome == MATCHES);
}

static void like(sqlite3_context *context, int count, sqlite3_value **values) {
    pattern(context, count, values, (rules){.all = '%', .one = '_', .folds_case = 1});
}

static void glob(sqlite3_context *context, int count, sqlite3_value **values) {
    pattern(context, count, values, (rules){.all = '*', .one = '?', .set = '['});
}

int reprise_replace_quadratic_functions(sqlite3 *db, int max_set_bytes) {
    static const struct {
        const char *name;
        int arguments, sides;
        void (*function)(sqlite3_context *, int, sqlite3_value **);
    } all[] = {
        {"like", 2, 0, like},
        {"like", 3, 0, like},
        {"glob", 2, 0, glob},
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
        // Innocuous, like SQLite's own: views may use them even if the schema is not trusted.
        int code = sqlite3_create_function_v2(
            db, all[i].name, all[i].arguments, SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, configuration,
            all[i].function, 0, 0, sqlite3_free);
        if (code != SQLITE_OK) return code;
    }
    return SQLITE_OK;
}
