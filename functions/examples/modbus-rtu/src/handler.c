// Modbus RTU frames, as a serial gateway publishes them, to registers as JSON.

#include <holm.h>

#include "modbus.h"

holm_outcome handle(const holm_event *event) {
    modbus_answer answer = {0};
    switch (modbus_read((const uint8_t *)event->data.at, event->data.length, &answer)) {
    case MODBUS_OK:
        break;
    case MODBUS_LENGTH:
        return holm_reject("a frame of %zu bytes is not as long as it says", event->data.length);
    case MODBUS_CRC:
        return holm_reject("the CRC is wrong: noise on the line, or not a whole frame");
    case MODBUS_FUNCTION:
        return holm_reject("function %u is not one that reads registers", answer.function);
    case MODBUS_EXCEPTION:
        // The device says no: that is an answer too.
        holm_log(HOLM_WARN, "device %u answers with exception %u", answer.address, answer.exception);
        return holm_ok();
    }
    const char *list = "";
    for (size_t i = 0; i < answer.count; i++) list = holm_format("%s%s%u", list, i == 0 ? "" : ",", answer.registers[i]);
    HOLM_TRY(holm_publish(holm_format("modbus/%u/registers", answer.address),
                          holm_format("{\"function\":%u,\"registers\":[%s]}", answer.function, list)));
    return holm_ok();
}
