// Write Holm functions in C.
//
// A function is a handler: it gets an event, and what it publishes, stores or records is staged and happens, all at once,
// only if it returns holm_ok() or holm_answer(). An instance lives for one event: memory is never freed, and globals
// begin anew; what lasts is in the key-value store.
//
//     holm_outcome handle(const holm_event *event) {
//         double celsius;
//         if (!holm_json_number(event->data, "celsius", &celsius)) return holm_reject("no celsius");
//         if (celsius > holm_config_number("limit", 30.0)) {
//             HOLM_TRY(holm_publish("alerts/temperature", holm_format("{\"celsius\":%g}", celsius)));
//         }
//         return holm_ok();
//     }
//
// There is no C library: <stdlib.h> and <string.h> have what this SDK needs itself, and no more.
#ifndef HOLM_H
#define HOLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes that are somewhere else. Text of the SDK's own ends with a zero as well; payloads need not.
typedef struct {
    const char *at;
    size_t length;
} holm_bytes;

// The bytes of a text.
holm_bytes holm_bytes_of(const char *text);

// ---- events, and what becomes of them

// Something that happened.
typedef struct {
    // Stable across retries: what to deduplicate by.
    const char *id;
    // mqtt, schedule, sensor, gpio, http, file, function, invoke, lifecycle, ...
    const char *source;
    // The topic, the name of the schedule, sensor or line, the path, or the calling function.
    const char *subject;
    // NULL where the publisher gave none.
    const char *content_type;
    // The payload.
    holm_bytes data;
    // When the node accepted it, in milliseconds since 1970.
    uint64_t time_ms;
    // Whether the node's clock could be trusted then.
    bool time_synced;
    // 1 on first delivery.
    uint32_t attempt;
    // For holm_attribute.
    const void *attributes;
} holm_event;

// How a handler ends. Made by the four functions below.
typedef struct {
    int kind;
    const char *reason;
    uint32_t after_ms;
    holm_bytes answer;
} holm_outcome;

// The function: yours.
holm_outcome handle(const holm_event *event);

// All that was staged happens.
holm_outcome holm_ok(void);
// The same, with an answer for whoever invoked the function, or is chained to it: JSON.
holm_outcome holm_answer(const char *json);
// The event can never succeed: nothing happens, and it goes to the dead letters.
holm_outcome holm_reject(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Nothing happens, and it is delivered again, not before so long: 0 leaves that to the manifest.
holm_outcome holm_retry(uint32_t after_ms, const char *format, ...) __attribute__((format(printf, 2, 3)));

// The first attribute of that name, such as "qos" or "method"; NULL where there is none.
const char *holm_attribute(const holm_event *event, const char *name);
// A level of the topic, counted from 0: of sensors/a/temp, level 1 is `a`; "" where there is none.
const char *holm_level(const holm_event *event, unsigned index);

// ---- calls of the node

typedef enum {
    HOLM_OK,
    // The manifest does not grant it.
    HOLM_DENIED,
    // One event may not stage more, or not as much.
    HOLM_TOO_MUCH,
    // Neither granted nor there: a series, a function, a sensor.
    HOLM_NOT_FOUND,
    // What was asked makes no sense.
    HOLM_INVALID,
    // The node could not do it now.
    HOLM_UNAVAILABLE,
} holm_status;

// What the last call that failed had to say.
const char *holm_error(void);
// What becomes of the event when a call has failed: what the node could not do now is retried, all else is rejected.
holm_outcome holm_failed(holm_status status);
// Ends the handler if a call fails.
#define HOLM_TRY(call)                                                        \
    do {                                                                      \
        holm_status holm_try_status_ = (call);                                \
        if (holm_try_status_ != HOLM_OK) return holm_failed(holm_try_status_); \
    } while (0)

// Stages a message: QoS 1, to the local broker.
holm_status holm_publish(const char *topic, const char *text);
// The same with everything that can be said about it.
typedef struct {
    // 0, 1 or 2.
    int qos;
    bool retain;
    // Beside or instead of the local broker.
    enum { HOLM_LOCAL, HOLM_CLOUD, HOLM_BOTH } route;
    // Seconds after which it may be dropped undelivered; 0 is never.
    uint32_t expiry_s;
    // NULL for none.
    const char *content_type;
} holm_options;
holm_status holm_publish_with(const char *topic, holm_bytes payload, holm_options options);

// Records a row of a series that the manifest declares: a finite number, or a JSON value.
holm_status holm_record(const char *series, double value);
holm_status holm_record_json(const char *series, const char *json);

// Keys and values, in a namespace that the manifest grants: HOLM_SELF, or such as "shared/site". A key that is not there
// has `at` NULL.
#define HOLM_SELF "self"
holm_status holm_kv_get(const char *space, const char *key, holm_bytes *value);
holm_status holm_kv_set(const char *space, const char *key, holm_bytes value);
holm_status holm_kv_delete(const char *space, const char *key);
// Adds to a counter, which begins at 0; `sum` may be NULL.
holm_status holm_kv_increment(const char *space, const char *key, uint64_t delta, uint64_t *sum);
// A number, as JSON; a key that is not there leaves `value` as it is.
holm_status holm_kv_get_number(const char *space, const char *key, double *value);
holm_status holm_kv_set_number(const char *space, const char *key, double value);

// A parameter of the manifest as text; NULL where there is none.
const char *holm_config(const char *name);
// As a number; the fallback where there is none, or it is not one.
double holm_config_number(const char *name, double fallback);

// Another function, now, with its answer (`answer` may be NULL); or later, staged like a publish.
holm_status holm_invoke(const char *function, const char *json, holm_bytes *answer);
holm_status holm_enqueue(const char *function, const char *json, uint64_t delay_ms);

// The board: see the manifest's permissions. What is driven is driven now, and not undone.
holm_status holm_gpio_get(const char *line, bool *active);
holm_status holm_gpio_set(const char *line, bool active);
// One channel of what a sensor says now.
holm_status holm_sensor_read(const char *sensor, const char *channel, double *value);
// Sends bytes to a chip, then reads as many as `read` has room for; either may be of length 0.
holm_status holm_i2c(const char *bus, uint8_t address, holm_bytes write, uint8_t *read, size_t length);

// A line of the log, kept whether or not the handler succeeds.
typedef enum { HOLM_DEBUG, HOLM_INFO, HOLM_WARN, HOLM_ERROR } holm_severity;
void holm_log(holm_severity severity, const char *format, ...) __attribute__((format(printf, 2, 3)));

// 64 random bits, fit for secrets.
uint64_t holm_random(void);

// ---- text

// As printf has them: %s %.*s %c %d %u %x %lld %llu %zu %%, with a width and zeros for the integers. %g alone differs: it
// is the shortest number that reads back as the same, and fit for JSON.
const char *holm_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
// A text as a JSON string, with its quotes.
const char *holm_quote(const char *text);

// Values of a JSON document by a path such as "battery" or "ENERGY.Power". The document is looked through as a whole:
// one that is not JSON has no values. `false` where there is none of that type.
bool holm_json_number(holm_bytes json, const char *path, double *value);
bool holm_json_bool(holm_bytes json, const char *path, bool *value);
bool holm_json_text(holm_bytes json, const char *path, const char **value);
// Of any type, as it is written.
bool holm_json_find(holm_bytes json, const char *path, holm_bytes *value);

// A decimal number, and where it ends; NULL where none begins.
const char *holm_parse_number(const char *at, const char *end, double *value);
// The shortest text that reads back as the same number, and its length; null for what is not finite. At most 32 bytes.
size_t holm_write_number(char *to, double value);

#endif
