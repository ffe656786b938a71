// See "MODBUS over Serial Line, Specification and Implementation Guide V1.02", 2.5.1, and its appendix B for the CRC.

#include "modbus.h"

static uint16_t crc(const uint8_t *bytes, size_t length) {
    uint16_t crc = 0xffff;
    for (size_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xa001 : crc >> 1;
    }
    return crc;
}

modbus_status modbus_read(const uint8_t *frame, size_t length, modbus_answer *answer) {
    if (length < 5) return MODBUS_LENGTH;
    // The low byte comes first.
    if (crc(frame, length - 2) != (frame[length - 2] | frame[length - 1] << 8)) return MODBUS_CRC;
    answer->address = frame[0];
    answer->function = frame[1] & 0x7f;
    if (answer->function != 3 && answer->function != 4) return MODBUS_FUNCTION;
    if (frame[1] & 0x80) {
        answer->exception = frame[2];
        return length == 5 ? MODBUS_EXCEPTION : MODBUS_LENGTH;
    }
    size_t bytes = frame[2];
    if (bytes != length - 5 || bytes % 2 != 0 || bytes / 2 > MODBUS_MOST) return MODBUS_LENGTH;
    answer->count = bytes / 2;
    // In registers, the high byte comes first.
    for (size_t i = 0; i < answer->count; i++) answer->registers[i] = (uint16_t)(frame[3 + 2 * i] << 8 | frame[4 + 2 * i]);
    return MODBUS_OK;
}
