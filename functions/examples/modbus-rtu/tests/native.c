// The published frames, and frames with wrong bits, natively: tests/tests/sdk_c.rs compiles this with sanitizers and runs it.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/modbus.h"

static int failures;
#define CHECK(condition) ((condition) ? 0 : (failures++, printf("%d: %s\n", __LINE__, #condition)))

// From a copy that ends where its memory does.
static modbus_status read_exactly(const uint8_t *frame, size_t length, modbus_answer *answer) {
    uint8_t *copy = malloc(length + (length == 0));
    memcpy(copy, frame, length);
    modbus_status status = modbus_read(copy, length, answer);
    free(copy);
    return status;
}

int main(void) {
    // The example of https://www.simplymodbus.ca/FC03.htm.
    static const uint8_t FRAME[] = {0x11, 0x03, 0x06, 0xae, 0x41, 0x56, 0x52, 0x43, 0x40, 0x49, 0xad};
    modbus_answer answer;
    CHECK(read_exactly(FRAME, sizeof FRAME, &answer) == MODBUS_OK);
    CHECK(answer.address == 0x11 && answer.function == 3 && answer.count == 3);
    CHECK(answer.registers[0] == 0xae41 && answer.registers[1] == 0x5652 && answer.registers[2] == 0x4340);
    // A CRC of 16 bits finds every error of one or two bits in frames so short, and every burst of up to 16.
    for (size_t a = 0; a < sizeof FRAME * 8; a++) {
        for (size_t b = a; b < sizeof FRAME * 8; b++) {
            uint8_t wrong[sizeof FRAME];
            memcpy(wrong, FRAME, sizeof wrong);
            wrong[a / 8] ^= (uint8_t)(1 << a % 8);
            if (a != b) wrong[b / 8] ^= (uint8_t)(1 << b % 8);
            CHECK(read_exactly(wrong, sizeof wrong, &answer) == MODBUS_CRC);
        }
    }
    for (size_t length = 0; length < sizeof FRAME; length++) CHECK(read_exactly(FRAME, length, &answer) != MODBUS_OK);
    uint64_t seed = 88172645463325252ull;
    for (int round = 0; round < 300000; round++) {
        uint8_t noise[256];
        size_t length = 0;
        for (size_t i = 0; i < sizeof noise; i++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            noise[i] = (uint8_t)seed;
        }
        length = seed % 256;
        // Believable up to its CRC, every other time.
        if (round % 2) noise[1] = 3, noise[2] = (uint8_t)(length - 5);
        if (read_exactly(noise, length, &answer) == MODBUS_OK) CHECK(answer.count <= MODBUS_MOST);
    }
    printf("%d failures\n", failures);
    return failures != 0;
}
