// Text: made like printf does, and read from JSON.

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "holm.h"
#include "text.h"

holm_bytes holm_bytes_of(const char *text) {
    return (holm_bytes){text, strlen(text)};
}

// ---- formatting

// A text that grows; what it grows into is memory's last piece, as a rule, and so it does not move.
typedef struct {
    char *at;
    size_t length;
    size_t room;
} buffer;

static void put(buffer *to, const char *text, size_t length) {
    // One more for the zero at the end.
    if (to->room - to->length <= length) {
        to->room = to->length + length + 64;
        to->at = realloc(to->at, to->room);
    }
    memcpy(to->at + to->length, text, length);
    to->length += length;
    to->at[to->length] = '\0';
}

static void put_integer(buffer *to, uint64_t value, bool negative, unsigned base, int width, char fill) {
    char digits[24];
    int length = 0;
    do {
        digits[sizeof digits - 1 - (size_t)length++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    if (negative && fill == '0') put(to, "-", 1);
    for (int i = length + negative; i < width; i++) put(to, &fill, 1);
    if (negative && fill != '0') put(to, "-", 1);
    put(to, digits + sizeof digits - length, (size_t)length);
}

const char *holm_vformat(const char *format, va_list arguments) {
    buffer to = {0};
    put(&to, "", 0);
    for (const char *at = format; *at != '\0';) {
        size_t plain = 0;
        while (at[plain] != '\0' && at[plain] != '%') plain++;
        put(&to, at, plain);
        at += plain;
        if (*at == '\0') break;
        at++;
        char fill = ' ';
        int width = 0, precision = -1, longs = 0;
        if (*at == '0') fill = '0', at++;
        while (*at >= '0' && *at <= '9') width = width * 10 + (*at++ - '0');
        if (at[0] == '.' && at[1] == '*') {
            precision = va_arg(arguments, int);
            at += 2;
        }
        for (; *at == 'l' || *at == 'z'; at++) longs += *at == 'l';
        switch (*at++) {
        case 's': {
            const char *text = va_arg(arguments, const char *);
            if (text == NULL) text = "(null)";
            size_t length = 0;
            while ((precision < 0 || length < (size_t)precision) && text[length] != '\0') length++;
            put(&to, text, length);
            break;
        }
        case 'c': {
            char letter = (char)va_arg(arguments, int);
            put(&to, &letter, 1);
            break;
        }
        case 'd': {
            int64_t value = longs == 2 ? va_arg(arguments, long long) : va_arg(arguments, int);
            put_integer(&to, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, value < 0, 10, width, fill);
            break;
        }
        case 'u':
        case 'x': {
            uint64_t value = longs == 2 ? va_arg(arguments, unsigned long long) : va_arg(arguments, unsigned);
            put_integer(&to, value, false, at[-1] == 'x' ? 16 : 10, width, fill);
            break;
        }
        case 'g': {
            char number[32];
            put(&to, number, holm_write_number(number, va_arg(arguments, double)));
            break;
        }
        case '%':
            put(&to, "%", 1);
            break;
        default:
            // What this does not know would take the wrong argument.
            abort();
        }
    }
    return to.at;
}

const char *holm_format(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const char *text = holm_vformat(format, arguments);
    va_end(arguments);
    return text;
}

const char *holm_quote(const char *text) {
    buffer to = {0};
    put(&to, "\"", 1);
    for (const char *at = text; *at != '\0'; at++) {
        unsigned char letter = (unsigned char)*at;
        if (letter == '"' || letter == '\\') {
            put(&to, "\\", 1);
            put(&to, at, 1);
        } else if (letter < 0x20) {
            put(&to, "\\u", 2);
            put_integer(&to, letter, false, 16, 4, '0');
        } else {
            put(&to, at, 1);
        }
    }
    put(&to, "\"", 1);
    return to.at;
}

// ---- JSON (RFC 8259)

// How deep arrays and objects may nest.
#define DEEPEST 64

typedef struct {
    const char *at;
    const char *end;
    // What is looked for, and where it was found: the value of the last of equal names.
    holm_bytes found;
} reader;

static void blanks(reader *json) {
    while (json->at < json->end && (*json->at == ' ' || *json->at == '\t' || *json->at == '\n' || *json->at == '\r'))
        json->at++;
}

static bool is_next(reader *json, char wanted) {
    if (json->at == json->end || *json->at != wanted) return false;
    json->at++;
    return true;
}

static int hex(const char *at, const char *end) {
    if (end - at < 4) return -1;
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char letter = at[i] | 0x20;
        int digit = letter >= '0' && letter <= '9' ? letter - '0' : letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

// Past a string, whose opening quote has been read.
static bool string(reader *json) {
    for (; json->at < json->end; json->at++) {
        if (*json->at == '"') {
            json->at++;
            return true;
        }
        if ((unsigned char)*json->at < 0x20) return false;
        if (*json->at == '\\') {
            if (++json->at == json->end) return false;
            if (*json->at == 'u') {
                if (hex(json->at + 1, json->end) < 0) return false;
                json->at += 4;
            } else if (*json->at == '\0' || strchr("\"\\/bfnrt", *json->at) == NULL) {
                return false;
            }
        }
    }
    return false;
}

static bool number(reader *json) {
    double value;
    const char *digits = json->at + (*json->at == '-');
    const char *end = holm_parse_number(json->at, json->end, &value);
    // JSON has no zeros in front.
    if (end == NULL || (digits[0] == '0' && end - digits > 1 && digits[1] >= '0' && digits[1] <= '9')) return false;
    json->at = end;
    return true;
}

static bool word(reader *json, const char *text) {
    size_t length = strlen(text);
    if ((size_t)(json->end - json->at) < length || memcmp(json->at, text, length) != 0) return false;
    json->at += length;
    return true;
}

// Whether a path begins with this name, and what is left of it then; NULL if it does not.
static const char *below(const char *path, const char *name, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (path[i] != name[i]) return NULL;
    }
    if (path[length] == '\0') return path + length;
    return path[length] == '.' ? path + length + 1 : NULL;
}

// Past a value, and keeps what is at `path` in it. NULL is a path that nothing is at.
static bool value(reader *json, const char *path, int depth) {
    blanks(json);
    if (json->at == json->end || depth == DEEPEST) return false;
    const char *begin = json->at;
    bool good = false;
    switch (*json->at) {
    case '{':
        json->at++;
        blanks(json);
        if (is_next(json, '}')) {
            good = true;
            break;
        }
        do {
            blanks(json);
            if (!is_next(json, '"')) return false;
            const char *name = json->at;
            if (!string(json)) return false;
            size_t length = (size_t)(json->at - name) - 1;
            blanks(json);
            if (!is_next(json, ':')) return false;
            bool on = path != NULL && *path != '\0';
            if (!value(json, on ? below(path, name, length) : NULL, depth + 1)) return false;
            blanks(json);
        } while (is_next(json, ','));
        good = is_next(json, '}');
        break;
    case '[':
        json->at++;
        blanks(json);
        if (is_next(json, ']')) {
            good = true;
            break;
        }
        do {
            if (!value(json, NULL, depth + 1)) return false;
            blanks(json);
        } while (is_next(json, ','));
        good = is_next(json, ']');
        break;
    case '"':
        json->at++;
        good = string(json);
        break;
    case 't':
        good = word(json, "true");
        break;
    case 'f':
        good = word(json, "false");
        break;
    case 'n':
        good = word(json, "null");
        break;
    default:
        good = number(json);
    }
    if (good && path != NULL && *path == '\0') json->found = (holm_bytes){begin, (size_t)(json->at - begin)};
    return good;
}

bool holm_json_find(holm_bytes json, const char *path, holm_bytes *found) {
    reader reader = {json.at, json.at + json.length, {0}};
    if (!value(&reader, path, 0)) return false;
    blanks(&reader);
    if (reader.at != reader.end || reader.found.at == NULL) return false;
    *found = reader.found;
    return true;
}

bool holm_json_number(holm_bytes json, const char *path, double *value) {
    holm_bytes found;
    if (!holm_json_find(json, path, &found)) return false;
    return holm_parse_number(found.at, found.at + found.length, value) == found.at + found.length;
}

bool holm_json_bool(holm_bytes json, const char *path, bool *value) {
    holm_bytes found;
    if (!holm_json_find(json, path, &found) || (*found.at != 't' && *found.at != 'f')) return false;
    *value = *found.at == 't';
    return true;
}

// A character as UTF-8.
static size_t encode(char *to, uint32_t letter) {
    if (letter < 0x80) return *to = (char)letter, 1;
    size_t length = letter < 0x800 ? 2 : letter < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, letter >>= 6) to[i] = (char)(0x80 | (letter & 0x3f));
    to[0] = (char)((0xf00 >> length) | letter);
    return length;
}

bool holm_json_text(holm_bytes json, const char *path, const char **value) {
    holm_bytes found;
    if (!holm_json_find(json, path, &found) || *found.at != '"') return false;
    // No escape is shorter than what it stands for.
    char *text = malloc(found.length), *to = text;
    const char *end = found.at + found.length - 1;
    for (const char *at = found.at + 1; at < end; at++) {
        if (*at != '\\') {
            *to++ = *at;
            continue;
        }
        switch (*++at) {
        case 'b':
            *to++ = '\b';
            break;
        case 'f':
            *to++ = '\f';
            break;
        case 'n':
            *to++ = '\n';
            break;
        case 'r':
            *to++ = '\r';
            break;
        case 't':
            *to++ = '\t';
            break;
        case 'u': {
            uint32_t letter = (uint32_t)hex(at + 1, end);
            at += 4;
            // Two halves of one character; a half alone is none.
            if (letter >= 0xd800 && letter < 0xe000) {
                int half = end - at > 6 && at[1] == '\\' && at[2] == 'u' ? hex(at + 3, end) : -1;
                if (letter >= 0xdc00 || half < 0xdc00 || half >= 0xe000) return false;
                letter = 0x10000 + ((letter - 0xd800) << 10) + ((uint32_t)half - 0xdc00);
                at += 6;
            }
            to += encode(to, letter);
            break;
        }
        default:
            *to++ = *at;
        }
    }
    *to = '\0';
    *value = text;
    return true;
}
