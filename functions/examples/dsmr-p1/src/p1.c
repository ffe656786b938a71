// See "Dutch Smart Meter Requirements, P1 Companion Standard" 5.0.2, chapters 5.2 and 6.

#include "p1.h"

#include <string.h>

// The meters for gas, water and heat are on channels 1 to 4: `n` is any of them.
static const p1_telegram NONE = {{
    [P1_IMPORT_1] = {.obis = "1-0:1.8.1", .unit = "kWh", .name = "import_1_kwh"},
    [P1_IMPORT_2] = {.obis = "1-0:1.8.2", .unit = "kWh", .name = "import_2_kwh"},
    [P1_EXPORT_1] = {.obis = "1-0:2.8.1", .unit = "kWh", .name = "export_1_kwh"},
    [P1_EXPORT_2] = {.obis = "1-0:2.8.2", .unit = "kWh", .name = "export_2_kwh"},
    [P1_POWER_IN] = {.obis = "1-0:1.7.0", .unit = "kW", .name = "power_in_kw"},
    [P1_POWER_OUT] = {.obis = "1-0:2.7.0", .unit = "kW", .name = "power_out_kw"},
    [P1_GAS] = {.obis = "0-n:24.2.1", .unit = "m3", .name = "gas_m3"},
}};

static uint16_t crc(const char *text, size_t length) {
    uint16_t crc = 0;
    for (size_t i = 0; i < length; i++) {
        crc ^= (uint8_t)text[i];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xa001 : crc >> 1;
    }
    return crc;
}

static int hex(char letter) {
    if (letter >= '0' && letter <= '9') return letter - '0';
    return letter >= 'A' && letter <= 'F' ? letter - 'A' + 10 : -1;
}

static bool is_obis(const char *at, size_t length, const char *obis) {
    if (length <= strlen(obis) || at[strlen(obis)] != '(') return false;
    for (; *obis != '\0'; obis++, at++) {
        if (*obis == 'n' ? *at < '1' || *at > '4' : *at != *obis) return false;
    }
    return true;
}

// A line such as 1-0:1.8.1(000004.426*kWh): the last pair of brackets has the value.
static bool read_value(const char *line, size_t length, p1_value *value) {
    size_t unit = strlen(value->unit);
    if (length < unit + 2 || line[length - 1] != ')' || memcmp(line + length - 1 - unit, value->unit, unit) != 0) return false;
    size_t end = length - 1 - unit;
    if (line[--end] != '*') return false;
    size_t begin = end;
    while (begin > 0 && line[begin - 1] != '(') begin--;
    int decimals = -1;
    int64_t thousandths = 0;
    if (begin == end || end - begin > 14) return false;
    for (size_t i = begin; i < end; i++) {
        if (line[i] == '.' && decimals < 0) {
            decimals = 0;
        } else if (line[i] >= '0' && line[i] <= '9' && decimals < 3) {
            thousandths = thousandths * 10 + (line[i] - '0');
            if (decimals >= 0) decimals++;
        } else {
            return false;
        }
    }
    for (int i = decimals < 0 ? 0 : decimals; i < 3; i++) thousandths *= 10;
    value->there = true;
    value->thousandths = thousandths;
    return true;
}

p1_status p1_read(const char *text, size_t length, p1_telegram *telegram) {
    *telegram = NONE;
    if (length == 0 || text[0] != '/') return P1_FRAME;
    const char *mark = NULL;
    for (size_t i = 0; i < length && mark == NULL; i++) {
        if (text[i] == '!') mark = text + i;
    }
    if (mark == NULL || text + length - mark < 5) return P1_FRAME;
    int given = 0;
    for (int i = 1; i <= 4; i++) {
        if (hex(mark[i]) < 0) return P1_FRAME;
        given = given * 16 + hex(mark[i]);
    }
    if (crc(text, (size_t)(mark - text) + 1) != given) return P1_CRC;
    for (const char *line = text; line < mark;) {
        const char *end = line;
        while (end < mark && *end != '\r' && *end != '\n') end++;
        size_t most = (size_t)(end - line);
        for (int i = 0; i < P1_VALUES; i++) {
            p1_value *value = &telegram->values[i];
            if (is_obis(line, most, value->obis) && !read_value(line, most, value)) return P1_NUMBER;
        }
        line = end + 1;
    }
    return P1_OK;
}
