// Warns when a temperature rises above a threshold: once, until it has come back below it.

#include <holm.h>

holm_outcome handle(const holm_event *event) {
    // A payload that is not what it should be is rejected: it goes to the dead letters, and is not tried again.
    double celsius;
    if (!holm_json_number(event->data, "celsius", &celsius)) return holm_reject("no number `celsius` in the payload");
    const char *sensor = holm_level(event, 1);
    double threshold = holm_config_number("threshold_c", 30.0);
    double hysteresis = holm_config_number("hysteresis_c", 1.0);

    // State, publishes and results happen together with the event's completion, or not at all.
    holm_bytes warned;
    HOLM_TRY(holm_kv_get(HOLM_SELF, sensor, &warned));
    if (warned.at == NULL && celsius > threshold) {
        HOLM_TRY(holm_publish(holm_format("alerts/%s/temperature", sensor),
                              holm_format("{\"celsius\":%g,\"threshold\":%g}", celsius, threshold)));
        HOLM_TRY(holm_kv_set(HOLM_SELF, sensor, holm_bytes_of("true")));
    } else if (warned.at != NULL && celsius < threshold - hysteresis) {
        HOLM_TRY(holm_kv_delete(HOLM_SELF, sensor));
    }
    HOLM_TRY(holm_record("temperature", celsius));
    return holm_ok();
}
