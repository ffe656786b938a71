// The published telegram, and telegrams that are wrong, natively: tests/tests/sdk_c.rs compiles this with sanitizers and
// runs it, in this folder.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/p1.h"

static int failures;
#define CHECK(condition) ((condition) ? 0 : (failures++, printf("%d: %s\n", __LINE__, #condition)))

static p1_status read_exactly(const char *text, size_t length, p1_telegram *telegram) {
    char *copy = malloc(length + (length == 0));
    memcpy(copy, text, length);
    p1_status status = p1_read(copy, length, telegram);
    free(copy);
    return status;
}

// Puts the right CRC on whatever is before it, so that what comes after the check is reached.
static void sign(char *text) {
    unsigned crc = 0;
    size_t length = (size_t)(strchr(text, '!') - text);
    for (size_t i = 0; i <= length; i++) {
        crc ^= (unsigned char)text[i];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xa001 : crc >> 1;
    }
    char digits[9];
    snprintf(digits, sizeof digits, "%04X", crc & 0xffff);
    memcpy(text + length + 1, digits, 4);
}

int main(int count, char **arguments) {
    char text[2000] = {0};
    FILE *file = fopen(count > 1 ? arguments[1] : "telegram.txt", "rb");
    size_t length = file == NULL ? 0 : fread(text, 1, sizeof text - 1, file);
    CHECK(length > 500);
    p1_telegram telegram;
    CHECK(read_exactly(text, length, &telegram) == P1_OK);
    const int64_t expected[P1_VALUES] = {4426, 2399, 2444, 0, 244, 0, 107};
    for (int i = 0; i < P1_VALUES; i++) CHECK(telegram.values[i].there && telegram.values[i].thousandths == expected[i]);
    for (size_t cut = 0; cut < length - 6; cut++) CHECK(read_exactly(text, cut, &telegram) == P1_FRAME);
    for (size_t bit = 0; bit < (length - 6) * 8; bit++) {
        text[bit / 8] ^= (char)(1 << bit % 8);
        CHECK(read_exactly(text, length, &telegram) != P1_OK);
        text[bit / 8] ^= (char)(1 << bit % 8);
    }
    uint64_t seed = 88172645463325252ull;
    for (int round = 0; round < 20000; round++) {
        char wrong[sizeof text];
        memcpy(wrong, text, sizeof wrong);
        for (int i = 0; i < 4; i++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            wrong[1 + seed % (length - 8)] = "0123456789.()*:-\r\nkWhm3\xff"[(seed >> 32) % 24];
        }
        sign(wrong);
        p1_status status = read_exactly(wrong, length, &telegram);
        CHECK(status == P1_OK || status == P1_NUMBER);
        for (int i = 0; i < P1_VALUES; i++)
            CHECK(telegram.values[i].thousandths >= 0 && telegram.values[i].thousandths < 100000000000000000);
    }
    printf("%d failures\n", failures);
    return failures != 0;
}
