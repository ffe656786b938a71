// Answers of Modbus RTU devices to "read holding registers" and "read input registers".
#ifndef MODBUS_H
#define MODBUS_H

#include <stddef.h>
#include <stdint.h>

// As many as one frame can carry.
#define MODBUS_MOST 125

typedef enum {
    MODBUS_OK,
    // Shorter or longer than it says itself.
    MODBUS_LENGTH,
    MODBUS_CRC,
    // Neither function 3 nor 4.
    MODBUS_FUNCTION,
    // The device has answered that it cannot: see `exception`.
    MODBUS_EXCEPTION,
} modbus_status;

typedef struct {
    uint8_t address;
    uint8_t function;
    uint8_t exception;
    size_t count;
    uint16_t registers[MODBUS_MOST];
} modbus_answer;

// Reads a frame, from the device's address to the CRC.
modbus_status modbus_read(const uint8_t *frame, size_t length, modbus_answer *answer);

#endif
