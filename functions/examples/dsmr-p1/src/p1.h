// Telegrams of the P1 port of Dutch and Belgian smart meters.
#ifndef P1_H
#define P1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    P1_OK,
    // Not from `/` to `!` and a CRC.
    P1_FRAME,
    P1_CRC,
    // A number that is none.
    P1_NUMBER,
} p1_status;

// What a telegram says, by OBIS code. A value is in thousandths of its unit: telegrams have three decimals at most.
typedef struct {
    const char *obis;
    const char *unit;
    const char *name;
    bool there;
    int64_t thousandths;
} p1_value;

enum { P1_IMPORT_1, P1_IMPORT_2, P1_EXPORT_1, P1_EXPORT_2, P1_POWER_IN, P1_POWER_OUT, P1_GAS, P1_VALUES };

typedef struct {
    p1_value values[P1_VALUES];
} p1_telegram;

p1_status p1_read(const char *text, size_t length, p1_telegram *telegram);

#endif
