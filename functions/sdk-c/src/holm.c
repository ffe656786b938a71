// The handler as the node calls it, and the node's calls as C has them.

#include "holm.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "bindings.h"
#include "text.h"

// ---- between the bindings' texts and C's

static sdk_string_t wire(const char *text) {
    return (sdk_string_t){(uint8_t *)text, strlen(text)};
}

static sdk_list_u8_t wire_bytes(holm_bytes bytes) {
    return (sdk_list_u8_t){(uint8_t *)bytes.at, bytes.length};
}

// The same with a zero at its end.
static const char *text(sdk_string_t string) {
    char *copy = malloc(string.len + 1);
    memcpy(copy, string.ptr, string.len);
    copy[string.len] = '\0';
    return copy;
}

static holm_bytes bytes(sdk_list_u8_t list) {
    return (holm_bytes){text((sdk_string_t){list.ptr, list.len}), list.len};
}

static holm_function_types_payload_t json(holm_bytes data) {
    holm_function_types_payload_t payload = {{true, wire("application/json")}, wire_bytes(data)};
    return payload;
}

// ---- the handler

enum { OK, ANSWER, REJECT, RETRY };

bool exports_holm_function_handler_handle(exports_holm_function_handler_event_t *wire_event,
                                          exports_holm_function_handler_option_payload_t *answer,
                                          exports_holm_function_handler_failure_t *failure) {
    holm_event event = {
        .id = text(wire_event->id),
        .source = text(wire_event->source),
        .subject = text(wire_event->subject),
        .content_type = wire_event->content_type.is_some ? text(wire_event->content_type.val) : NULL,
        .data = bytes(wire_event->data),
        .time_ms = wire_event->time.seconds * 1000 + wire_event->time.nanoseconds / 1000000,
        .time_synced = wire_event->time_synced,
        .attempt = wire_event->attempt,
        .attributes = &wire_event->attributes,
    };
    holm_outcome outcome = handle(&event);
    answer->is_some = outcome.kind == ANSWER;
    if (answer->is_some) answer->val = json(outcome.answer);
    if (outcome.kind == REJECT) {
        failure->tag = HOLM_FUNCTION_TYPES_FAILURE_REJECT;
        failure->val.reject = wire(outcome.reason);
    } else if (outcome.kind == RETRY) {
        failure->tag = HOLM_FUNCTION_TYPES_FAILURE_RETRY;
        failure->val.retry.f0 = wire(outcome.reason);
        failure->val.retry.f1 = (sdk_option_u32_t){outcome.after_ms != 0, outcome.after_ms};
    }
    return outcome.kind == OK || outcome.kind == ANSWER;
}

holm_outcome holm_ok(void) {
    return (holm_outcome){.kind = OK};
}

holm_outcome holm_answer(const char *json) {
    return (holm_outcome){.kind = ANSWER, .answer = holm_bytes_of(json)};
}

holm_outcome holm_reject(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    holm_outcome outcome = {.kind = REJECT, .reason = holm_vformat(format, arguments)};
    va_end(arguments);
    return outcome;
}

holm_outcome holm_retry(uint32_t after_ms, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    holm_outcome outcome = {.kind = RETRY, .reason = holm_vformat(format, arguments), .after_ms = after_ms};
    va_end(arguments);
    return outcome;
}

const char *holm_attribute(const holm_event *event, const char *name) {
    const sdk_list_tuple2_string_string_t *attributes = event->attributes;
    size_t length = strlen(name);
    for (size_t i = 0; i < attributes->len; i++) {
        sdk_tuple2_string_string_t *one = &attributes->ptr[i];
        if (one->f0.len == length && memcmp(one->f0.ptr, name, length) == 0) return text(one->f1);
    }
    return NULL;
}

const char *holm_level(const holm_event *event, unsigned index) {
    const char *level = event->subject;
    for (; index > 0; index--) {
        level = strchr(level, '/');
        if (level == NULL) return "";
        level++;
    }
    const char *end = strchr(level, '/');
    size_t length = end == NULL ? strlen(level) : (size_t)(end - level);
    return text((sdk_string_t){(uint8_t *)level, length});
}

// ---- failures of calls

static const char *words = "";

static holm_status fail(holm_status status, const char *what) {
    words = what;
    return status;
}

const char *holm_error(void) {
    return words;
}

holm_outcome holm_failed(holm_status status) {
    return status == HOLM_UNAVAILABLE ? holm_retry(0, "%s", words) : holm_reject("%s", words);
}

// ---- messages and results

holm_status holm_publish_with(const char *topic, holm_bytes payload, holm_options options) {
    sdk_string_t to = wire(topic);
    holm_function_publish_payload_t message = {{0}, wire_bytes(payload)};
    if (options.content_type != NULL) message.content_type = (sdk_option_string_t){true, wire(options.content_type)};
    holm_function_publish_options_t how = {
        .qos = (uint8_t)options.qos,
        .retain = options.retain,
        .route = (uint8_t)options.route,
        .expiry_seconds = {options.expiry_s != 0, options.expiry_s},
    };
    holm_function_publish_error_t error;
    if (holm_function_publish_publish(&to, &message, &how, &error)) return HOLM_OK;
    switch (error.tag) {
    case HOLM_FUNCTION_PUBLISH_ERROR_DENIED:
        return fail(HOLM_DENIED, holm_format("denied: %s", text(error.val.denied)));
    case HOLM_FUNCTION_PUBLISH_ERROR_QUEUE_FULL:
        return fail(HOLM_TOO_MUCH, "one event may not stage more");
    case HOLM_FUNCTION_PUBLISH_ERROR_TOO_LARGE:
        return fail(HOLM_TOO_MUCH, holm_format("more than the limit of %u bytes", (unsigned)error.val.too_large));
    default:
        return fail(HOLM_INVALID, text(error.val.other));
    }
}

holm_status holm_publish(const char *topic, const char *text) {
    return holm_publish_with(topic, holm_bytes_of(text), (holm_options){.qos = 1});
}

static holm_status recorded(bool good, const char *series, holm_function_results_error_t *error) {
    if (good) return HOLM_OK;
    switch (error->tag) {
    case HOLM_FUNCTION_RESULTS_ERROR_NO_SUCH_SERIES:
        return fail(HOLM_NOT_FOUND, holm_format("not found: series %s", series));
    case HOLM_FUNCTION_RESULTS_ERROR_DENIED:
        return fail(HOLM_DENIED, holm_format("denied: series %s", series));
    case HOLM_FUNCTION_RESULTS_ERROR_TOO_LARGE:
        return fail(HOLM_TOO_MUCH, holm_format("more than the limit of %u bytes", (unsigned)error->val.too_large));
    case HOLM_FUNCTION_RESULTS_ERROR_QUEUE_FULL:
        return fail(HOLM_TOO_MUCH, "one event may not record more");
    default:
        return fail(HOLM_INVALID, text(error->val.other));
    }
}

holm_status holm_record(const char *series, double value) {
    sdk_string_t name = wire(series);
    holm_function_results_error_t error;
    return recorded(holm_function_results_record_value(&name, value, &error), series, &error);
}

holm_status holm_record_json(const char *series, const char *json) {
    sdk_string_t name = wire(series);
    sdk_list_u8_t value = wire_bytes(holm_bytes_of(json));
    holm_function_results_error_t error;
    return recorded(holm_function_results_record_json(&name, &value, &error), series, &error);
}

// ---- state

static holm_status stored(wasi_keyvalue_store_error_t *error, const char *space) {
    switch (error->tag) {
    case WASI_KEYVALUE_STORE_ERROR_NO_SUCH_STORE:
        return fail(HOLM_NOT_FOUND, holm_format("not found: key-value namespace %s", space));
    case WASI_KEYVALUE_STORE_ERROR_ACCESS_DENIED:
        return fail(HOLM_DENIED, holm_format("denied: key-value namespace %s", space));
    default:
        return fail(HOLM_UNAVAILABLE, text(error->val.other));
    }
}

// Opens a namespace, does something in it, and gives it back.
#define IN_BUCKET(space, call)                                                          \
    do {                                                                                \
        sdk_string_t name_ = wire(space);                                               \
        wasi_keyvalue_store_own_bucket_t own_;                                          \
        wasi_keyvalue_store_error_t error;                                              \
        if (!wasi_keyvalue_store_open(&name_, &own_, &error)) return stored(&error, space); \
        wasi_keyvalue_store_borrow_bucket_t bucket = wasi_keyvalue_store_borrow_bucket(own_); \
        bool good_ = (call);                                                            \
        wasi_keyvalue_store_bucket_drop_own(own_);                                      \
        if (!good_) return stored(&error, space);                                       \
    } while (0)

holm_status holm_kv_get(const char *space, const char *key, holm_bytes *value) {
    sdk_string_t name = wire(key);
    sdk_option_list_u8_t found;
    IN_BUCKET(space, wasi_keyvalue_store_method_bucket_get(bucket, &name, &found, &error));
    *value = found.is_some ? bytes(found.val) : (holm_bytes){0};
    return HOLM_OK;
}

holm_status holm_kv_set(const char *space, const char *key, holm_bytes value) {
    sdk_string_t name = wire(key);
    sdk_list_u8_t list = wire_bytes(value);
    IN_BUCKET(space, wasi_keyvalue_store_method_bucket_set(bucket, &name, &list, &error));
    return HOLM_OK;
}

holm_status holm_kv_delete(const char *space, const char *key) {
    sdk_string_t name = wire(key);
    IN_BUCKET(space, wasi_keyvalue_store_method_bucket_delete(bucket, &name, &error));
    return HOLM_OK;
}

holm_status holm_kv_increment(const char *space, const char *key, uint64_t delta, uint64_t *sum) {
    sdk_string_t name = wire(key);
    uint64_t total;
    IN_BUCKET(space, wasi_keyvalue_atomics_increment(bucket, &name, delta, &total, &error));
    if (sum != NULL) *sum = total;
    return HOLM_OK;
}

holm_status holm_kv_get_number(const char *space, const char *key, double *value) {
    holm_bytes found;
    holm_status status = holm_kv_get(space, key, &found);
    if (status != HOLM_OK || found.at == NULL) return status;
    if (holm_json_number(found, "", value)) return HOLM_OK;
    return fail(HOLM_INVALID, holm_format("the value of %s is not a number", key));
}

holm_status holm_kv_set_number(const char *space, const char *key, double value) {
    return holm_kv_set(space, key, holm_bytes_of(holm_format("%g", value)));
}

// ---- parameters, the log, chance

const char *holm_config(const char *name) {
    sdk_string_t key = wire(name);
    sdk_option_string_t value;
    wasi_config_store_error_t error;
    return wasi_config_store_get(&key, &value, &error) && value.is_some ? text(value.val) : NULL;
}

double holm_config_number(const char *name, double fallback) {
    const char *value = holm_config(name);
    double number;
    return value != NULL && holm_json_number(holm_bytes_of(value), "", &number) ? number : fallback;
}

void holm_log(holm_severity severity, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    sdk_string_t context = wire("function"), message = wire(holm_vformat(format, arguments));
    va_end(arguments);
    wasi_logging_logging_log((uint8_t)(WASI_LOGGING_LOGGING_LEVEL_DEBUG + severity), &context, &message);
}

uint64_t holm_random(void) {
    return wasi_random_random_get_random_u64();
}

// ---- other functions

static holm_status reached(holm_function_invoke_error_t *error, const char *function) {
    switch (error->tag) {
    case HOLM_FUNCTION_INVOKE_ERROR_NO_SUCH_FUNCTION:
        return fail(HOLM_NOT_FOUND, holm_format("not found: function %s", function));
    case HOLM_FUNCTION_INVOKE_ERROR_DENIED:
        return fail(HOLM_DENIED, holm_format("denied: function %s", function));
    case HOLM_FUNCTION_INVOKE_ERROR_DEPTH_EXCEEDED:
        return fail(HOLM_DENIED, "denied: functions invoke each other too deep");
    case HOLM_FUNCTION_INVOKE_ERROR_TIMEOUT:
        return fail(HOLM_UNAVAILABLE, holm_format("%s took too long", function));
    default:
        return fail(HOLM_UNAVAILABLE, text(error->val.failed));
    }
}

holm_status holm_invoke(const char *function, const char *input, holm_bytes *answer) {
    sdk_string_t name = wire(function);
    holm_function_invoke_payload_t message = json(holm_bytes_of(input));
    holm_function_invoke_option_payload_t found;
    holm_function_invoke_error_t error;
    if (!holm_function_invoke_invoke(&name, &message, &found, &error)) return reached(&error, function);
    if (answer != NULL) *answer = found.is_some ? bytes(found.val.data) : (holm_bytes){0};
    return HOLM_OK;
}

holm_status holm_enqueue(const char *function, const char *input, uint64_t delay_ms) {
    sdk_string_t name = wire(function), id;
    holm_function_invoke_payload_t message = json(holm_bytes_of(input));
    holm_function_invoke_error_t error;
    if (holm_function_invoke_enqueue(&name, &message, &delay_ms, &id, &error)) return HOLM_OK;
    return reached(&error, function);
}

// ---- the board

static holm_status touched(holm_function_hardware_error_t *error, const char *what) {
    switch (error->tag) {
    case HOLM_FUNCTION_HARDWARE_ERROR_DENIED:
        return fail(HOLM_DENIED, holm_format("denied: %s", text(error->val.denied)));
    case HOLM_FUNCTION_HARDWARE_ERROR_NOT_FOUND:
        return fail(HOLM_NOT_FOUND, holm_format("not found: %s", what));
    case HOLM_FUNCTION_HARDWARE_ERROR_INVALID:
        return fail(HOLM_INVALID, text(error->val.invalid));
    case HOLM_FUNCTION_HARDWARE_ERROR_NO_ANSWER:
        return fail(HOLM_UNAVAILABLE, holm_format("%s does not answer", what));
    case HOLM_FUNCTION_HARDWARE_ERROR_BUS:
        return fail(HOLM_UNAVAILABLE, holm_format("%s: %s", what, text(error->val.bus)));
    case HOLM_FUNCTION_HARDWARE_ERROR_TIMEOUT:
        return fail(HOLM_UNAVAILABLE, holm_format("%s took too long", what));
    default:
        return fail(HOLM_UNAVAILABLE, text(error->val.unavailable));
    }
}

holm_status holm_gpio_get(const char *line, bool *active) {
    sdk_string_t name = wire(line);
    holm_function_gpio_level_t level;
    holm_function_gpio_error_t error;
    if (!holm_function_gpio_get(&name, &level, &error)) return touched(&error, line);
    *active = level == HOLM_FUNCTION_GPIO_LEVEL_HIGH;
    return HOLM_OK;
}

holm_status holm_gpio_set(const char *line, bool active) {
    sdk_string_t name = wire(line);
    holm_function_gpio_error_t error;
    uint8_t level = active ? HOLM_FUNCTION_GPIO_LEVEL_HIGH : HOLM_FUNCTION_GPIO_LEVEL_LOW;
    return holm_function_gpio_set(&name, level, &error) ? HOLM_OK : touched(&error, line);
}

holm_status holm_sensor_read(const char *sensor, const char *channel, double *value) {
    sdk_string_t name = wire(sensor);
    holm_function_sensors_list_reading_t readings;
    holm_function_sensors_error_t error;
    if (!holm_function_sensors_read(&name, &readings, &error)) return touched(&error, sensor);
    for (size_t i = 0; i < readings.len; i++) {
        if (strcmp(text(readings.ptr[i].channel), channel) == 0) {
            *value = readings.ptr[i].value;
            return HOLM_OK;
        }
    }
    return fail(HOLM_NOT_FOUND, holm_format("not found: channel %s of %s", channel, sensor));
}

holm_status holm_i2c(const char *bus, uint8_t address, holm_bytes write, uint8_t *read, size_t length) {
    sdk_string_t name = wire(bus);
    holm_function_i2c_operation_t operations[2];
    holm_function_i2c_list_operation_t list = {operations, 0};
    if (write.length != 0) {
        operations[list.len].tag = HOLM_FUNCTION_I2C_OPERATION_WRITE;
        operations[list.len++].val.write = wire_bytes(write);
    }
    if (length != 0) {
        operations[list.len].tag = HOLM_FUNCTION_I2C_OPERATION_READ;
        operations[list.len++].val.read = (uint32_t)length;
    }
    sdk_list_list_u8_t answers;
    holm_function_i2c_error_t error;
    if (!holm_function_i2c_transaction(&name, address, &list, &answers, &error)) return touched(&error, bus);
    if (length != 0 && (answers.len == 0 || answers.ptr[0].len != length))
        return fail(HOLM_UNAVAILABLE, holm_format("%s has answered with less than was asked", bus));
    if (length != 0) memcpy(read, answers.ptr[0].ptr, length);
    return HOLM_OK;
}
