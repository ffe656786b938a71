// P1 telegrams of a smart meter to meter readings as JSON, and the power as a result.

#include <holm.h>

#include "p1.h"

holm_outcome handle(const holm_event *event) {
    p1_telegram telegram;
    switch (p1_read(event->data.at, event->data.length, &telegram)) {
    case P1_OK:
        break;
    case P1_FRAME:
        return holm_reject("not a telegram, from / to ! and its CRC");
    case P1_CRC:
        return holm_reject("the CRC is wrong");
    case P1_NUMBER:
        return holm_reject("a value is not a number in its unit");
    }
    const char *fields = "";
    for (int i = 0; i < P1_VALUES; i++) {
        const p1_value *value = &telegram.values[i];
        if (!value->there) continue;
        fields = holm_format("%s%s\"%s\":%lld.%03lld", fields, *fields == '\0' ? "" : ",", value->name,
                             (long long)(value->thousandths / 1000), (long long)(value->thousandths % 1000));
    }
    HOLM_TRY(holm_publish_with("meter/readings", holm_bytes_of(holm_format("{%s}", fields)),
                               (holm_options){.qos = 1, .retain = true}));
    if (telegram.values[P1_POWER_IN].there)
        HOLM_TRY(holm_record("power", (double)telegram.values[P1_POWER_IN].thousandths));
    return holm_ok();
}
