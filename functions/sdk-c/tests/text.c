// JSON and formatting, natively: tests/tests/sdk_c.rs compiles this with sanitizers and runs it.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "holm.h"

static int failures;
#define CHECK(condition)                                             \
    do {                                                             \
        if (!(condition)) failures++, printf("%d: %s\n", __LINE__, #condition); \
    } while (0)

// What is read may not be read beyond its end: a copy that ends where its memory does.
static holm_bytes exactly(const char *text, size_t length) {
    char *copy = malloc(length + (length == 0));
    memcpy(copy, text, length);
    return (holm_bytes){copy, length};
}

static holm_bytes json(const char *text) {
    return exactly(text, strlen(text));
}

static const char DOCUMENT[] =
    "{\"a\": 1.5, \"b\": {\"c\": \"x\\u00e9\\n\\ud83c\\udfdd\", \"d\": [1, {\"a\": 2}]}, \"e\": true, \"a.b\": null, \"f\": -0.25e2}";

static void reads(void) {
    double number = 0;
    const char *text = NULL;
    bool flag = false;
    holm_bytes found;
    CHECK(holm_json_number(json(DOCUMENT), "a", &number) && number == 1.5);
    CHECK(holm_json_number(json(DOCUMENT), "f", &number) && number == -25);
    CHECK(holm_json_text(json(DOCUMENT), "b.c", &text) && strcmp(text, "xé\n🏝") == 0);
    CHECK(holm_json_bool(json(DOCUMENT), "e", &flag) && flag);
    CHECK(holm_json_find(json(DOCUMENT), "b.d", &found) && found.length == 13 && memcmp(found.at, "[1, {\"a\": 2}]", 13) == 0);
    CHECK(holm_json_find(json(DOCUMENT), "", &found) && found.length == strlen(DOCUMENT));
    CHECK(holm_json_find(json(DOCUMENT), "a.b", &found) && memcmp(found.at, "null", 4) == 0);
    CHECK(!holm_json_number(json(DOCUMENT), "e", &number) && !holm_json_number(json(DOCUMENT), "b.x", &number));
    CHECK(!holm_json_number(json(DOCUMENT), "A", &number) && !holm_json_text(json(DOCUMENT), "a", &text));
    CHECK(holm_json_number(json(" 7 "), "", &number) && number == 7);
    const char *bad[] = {"", "{", "{\"a\":1", "{\"a\":01}", "{\"a\":1,}", "{\"a\":1}x", "{a:1}", "[1 2]", "nul", "\"\\x\"", "\"\\u12\"",
                         "\"\\ud83c\"x", "{\"a\":1.}", "-", "\"\n\""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) CHECK(!holm_json_number(json(bad[i]), "a", &number));
    CHECK(!holm_json_text(json("\"\\ud83c\""), "", &text) && !holm_json_text(json("\"\\udfdd\""), "", &text));
    char deep[400];
    memset(deep, '[', 200), memset(deep + 200, ']', 200);
    CHECK(!holm_json_find(exactly(deep, 400), "", &found));
}

static void writes(void) {
    CHECK(strcmp(holm_format("%s/%d %5d|%05d|%x %02x %llu %c%%", "a", -7, -42, -42, 255u, 10u, ~0ull, 'z'),
                 "a/-7   -42|-0042|ff 0a 18446744073709551615 z%") == 0);
    CHECK(strcmp(holm_format("%.*s %g %g %g", 2, "abc", 0.1, 21.0, 1e-9), "ab 0.1 21 1e-9") == 0);
    CHECK(strcmp(holm_quote("a\"b\\\n\x01"), "\"a\\\"b\\\\\\u000a\\u0001\"") == 0);
    const char *back;
    CHECK(holm_json_text(json(holm_quote("é\"\n\t")), "", &back) && strcmp(back, "é\"\n\t") == 0);
}

// A document with some of its bytes changed: whatever comes of it, nothing outside of it is read.
static void fuzz(void) {
    uint64_t seed = 88172645463325252ull;
    for (int round = 0; round < 200000; round++) {
        char text[sizeof DOCUMENT];
        memcpy(text, DOCUMENT, sizeof text);
        size_t length = sizeof text - 1;
        for (int i = 0; i < 3; i++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            text[seed % length] = "\"\\{}[],:0123456789.eE+-tfnu \x01\xff"[(seed >> 32) % 30];
            if (seed >> 60 == 0) length = 1 + seed % length;
        }
        holm_bytes document = exactly(text, length), found;
        const char *value;
        double number;
        for (const char *paths[] = {"", "a", "b.c", "b.d", "e"}, **path = paths; path < paths + 5; path++) {
            if (holm_json_find(document, *path, &found))
                CHECK(found.at >= document.at && found.at + found.length <= document.at + length);
            if (holm_json_text(document, *path, &value)) free((void *)value);
            holm_json_number(document, *path, &number);
        }
        free((void *)document.at);
    }
}

int main(void) {
    reads(), writes(), fuzz();
    printf("%d failures\n", failures);
    return failures != 0;
}
