// Decimal numbers, without tables: read exactly where they have up to 15 digits and the exponent is small, and within one
// unit in the last place elsewhere, but at the very ends of the range; written with the fewest digits that read back as the same number.
//
// Where one double is not enough, two are: their sum has about 106 bits (T. J. Dekker, "A floating-point technique for
// extending the available precision", Numerische Mathematik 18, 1971).

#include "holm.h"

typedef struct {
    double high;
    double low;
} pair;

// All of these are exact.
static const double TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
#define LARGEST 22

static pair sum(double high, double low) {
    double total = high + low;
    return (pair){total, low - (total - high)};
}

static pair product(double a, double b) {
    const double split = 134217729.0;
    double x = a * split, y = b * split;
    double ah = x - (x - a), bh = y - (y - b);
    double al = a - ah, bl = b - bh;
    double high = a * b;
    return (pair){high, ((ah * bh - high) + ah * bl + al * bh) + al * bl};
}

static pair times(pair a, double b) {
    pair p = product(a.high, b);
    return sum(p.high, p.low + a.low * b);
}

static pair over(pair a, double b) {
    double first = a.high / b;
    pair back = product(first, b);
    double rest = (a.high - back.high) - back.low + a.low;
    return sum(first, rest / b);
}

// Times ten to a power.
static pair scale(pair value, int power) {
    for (; power > LARGEST; power -= LARGEST) value = times(value, TENS[LARGEST]);
    for (; power < -LARGEST; power += LARGEST) value = over(value, TENS[LARGEST]);
    return power < 0 ? over(value, TENS[-power]) : times(value, TENS[power]);
}

static double join(uint64_t digits, int power) {
    if (digits == 0 || power < -345) return 0;
    if (power > 309) return __builtin_inf();
    if (digits <= 1ull << 53 && power >= 0 && power <= LARGEST) return (double)digits * TENS[power];
    if (digits <= 1ull << 53 && power < 0 && power >= -LARGEST) return (double)digits / TENS[-power];
    double high = (double)digits;
    // Below 2^64, what rounding has added or taken away is a small number.
    double low = high >= 18446744073709551616.0 ? -(double)(0 - digits) : (double)(int64_t)(digits - (uint64_t)high);
    pair value = sum(high, low);
    // Pairs are exact as long as nothing on the way is near the end of the range.
    int inner = power > 280 ? 280 : power < -270 ? -270 : power;
    value = scale(value, inner);
    double read = value.high + value.low;
    for (power -= inner; power > 0; power--) read *= 10;
    for (; power < 0; power++) read /= 10;
    return read;
}

static bool is_digit(const char *at, const char *end) {
    return at < end && *at >= '0' && *at <= '9';
}

const char *holm_parse_number(const char *at, const char *end, double *value) {
    bool negative = at < end && *at == '-';
    if (negative) at++;
    if (!is_digit(at, end)) return NULL;
    uint64_t digits = 0;
    int power = 0;
    for (bool fraction = false;; at++) {
        if (!fraction && at < end && *at == '.' && is_digit(at + 1, end)) {
            fraction = true;
        } else if (!is_digit(at, end)) {
            break;
        } else if (digits < 1000000000000000000ull) {
            digits = digits * 10 + (uint64_t)(*at - '0');
            if (fraction) power--;
        } else if (!fraction && power < 1000) {
            // More digits than a number can tell apart.
            power++;
        }
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        const char *exponent = at + 1;
        bool less = exponent < end && *exponent == '-';
        if (less || (exponent < end && *exponent == '+')) exponent++;
        if (is_digit(exponent, end)) {
            int more = 0;
            for (; is_digit(exponent, end); exponent++) more = more < 10000 ? more * 10 + (*exponent - '0') : more;
            power += less ? -more : more;
            at = exponent;
        }
    }
    double read = join(digits, power);
    *value = negative ? -read : read;
    return at;
}

// The digits of a positive number, `count` of them, as an integer.
static uint64_t round_to(double value, int power) {
    pair scaled = scale((pair){value, 0}, power);
    // Both parts have whole numbers in them once there are more than 15 digits.
    uint64_t whole = (uint64_t)scaled.high;
    double rest = (scaled.high - (double)whole) + scaled.low;
    return whole + (uint64_t)(int64_t)(rest + 0.5 < 0 ? rest - 0.5 : rest + 0.5);
}

size_t holm_write_number(char *to, double value) {
    char *at = to;
    if (value != value || value - value != 0) {
        for (const char *none = "null"; *none != '\0';) *at++ = *none++;
        return (size_t)(at - to);
    }
    if (value < 0) *at++ = '-', value = -value;
    if (value == 0) {
        *at++ = '0';
        return (size_t)(at - to);
    }
    // The power of ten of the first digit, from that of two: 77/256 is a little less than log10(2).
    union {
        double value;
        uint64_t bits;
    } raw = {value};
    int first = ((int)(raw.bits >> 52) - 1023) * 77 / 256 - (value < 1 ? 1 : 0);
    uint64_t digits = 0;
    int power = 0;
    for (int count = 15; count <= 17; count++) {
        static const uint64_t ONE = 1;
        uint64_t most = ONE;
        for (int i = 0; i < count; i++) most *= 10;
        power = first - count + 1;
        digits = round_to(value, -power);
        // The estimate is one or two too small at times.
        while (digits >= most) digits = round_to(value, -++power);
        if (join(digits, power) == value) break;
    }
    while (digits % 10 == 0 && digits != 0) digits /= 10, power++;
    char text[20];
    int length = 0;
    for (; digits != 0; digits /= 10) text[length++] = (char)('0' + digits % 10);
    int point = length + power;
    bool exponent = point > 21 || point < -5;
    // 0.001: zeros first. 100: zeros last. 1.5e30: one digit before the point.
    if (!exponent && point <= 0) {
        *at++ = '0', *at++ = '.';
        for (int i = point; i < 0; i++) *at++ = '0';
    }
    for (int i = 0; i < length; i++) {
        *at++ = text[length - 1 - i];
        bool here = exponent ? i == 0 : i + 1 == point;
        if (here && i + 1 < length) *at++ = '.';
    }
    for (int i = length; !exponent && i < point; i++) *at++ = '0';
    if (exponent) {
        int shown = point - 1;
        *at++ = 'e';
        if (shown < 0) *at++ = '-', shown = -shown;
        if (shown >= 100) *at++ = (char)('0' + shown / 100);
        if (shown >= 10) *at++ = (char)('0' + shown / 10 % 10);
        *at++ = (char)('0' + shown % 10);
    }
    return (size_t)(at - to);
}
