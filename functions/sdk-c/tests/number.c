// Numbers against the C library of this machine: `cargo xtask test` compiles and runs this (tests/tests/sdk_c.rs).

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "holm.h"

static uint64_t seed = 88172645463325252ull;
static uint64_t next(void) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed;
}

static int failures;
static void check(int good, const char *what, const char *text, double a, double b) {
    if (!good && failures++ < 20) printf("%s: %s: %.17g, %.17g\n", what, text, a, b);
}

static double read_back(const char *text) {
    double value = NAN;
    const char *end = holm_parse_number(text, text + strlen(text), &value);
    check(end == text + strlen(text), "not read to its end", text, value, 0);
    return value;
}

// What is written reads back as the same number, by strtod and by ours, and is as short as printf can make it.
static void written(double value) {
    char text[40], shortest[40];
    text[holm_write_number(text, value)] = '\0';
    check(strtod(text, NULL) == value, "written", text, value, strtod(text, NULL));
    check(read_back(text) == value, "read back", text, value, read_back(text));
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(shortest, sizeof shortest, "%.*e", digits - 1, value);
        if (strtod(shortest, NULL) == value) break;
    }
    int ours = 0, theirs = 0;
    for (char *at = text; *at != '\0' && *at != 'e'; at++) ours += *at >= '1' && *at <= '9';
    for (char *at = shortest; *at != '\0' && *at != 'e'; at++) theirs += *at >= '1' && *at <= '9';
    check(strlen(text) <= 24 && ours <= theirs + 1, "longer than it must be", text, value, strtod(shortest, NULL));
}

int main(void) {
    for (int i = 0; i < 50000; i++) {
        // What sensors say: few digits, and a small exponent. Exactly as strtod reads it.
        char text[40];
        snprintf(text, sizeof text, "%s%llu.%0*llu", next() % 2 ? "-" : "", (unsigned long long)(next() % 100000),
                 (int)(1 + next() % 6), (unsigned long long)(next() % 10));
        check(read_back(text) == strtod(text, NULL), "read", text, read_back(text), strtod(text, NULL));
        written(strtod(text, NULL));
        // Any number: 17 digits and any exponent that does not leave the normal range.
        double any = ldexp((double)(next() >> 11), (int)(next() % 1600) - 800);
        written(any);
        snprintf(text, sizeof text, "%.*e", (int)(next() % 17), any);
        double expected = strtod(text, NULL), actual = read_back(text);
        check(actual == expected || actual == nextafter(expected, INFINITY) || actual == nextafter(expected, 0), "read",
              text, actual, expected);
        written((double)(int64_t)(next() % 2000001) - 1000000);
    }
    for (const char *bad[] = {"", "-", ".5", "+1", "x", "-x"}, **at = bad; at < bad + 6; at++) {
        double value;
        check(holm_parse_number(*at, *at + strlen(*at), &value) == NULL, "no number", *at, 0, 0);
    }
    char text[40];
    text[holm_write_number(text, INFINITY)] = '\0';
    check(strcmp(text, "null") == 0, "infinite", text, 0, 0);
    check(isinf(read_back("1e999")) && read_back("1e-999") == 0, "out of range", "1e999", 0, 0);
    printf("%d failures\n", failures);
    return failures != 0;
}
