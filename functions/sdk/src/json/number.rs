//! Decimal numbers, without tables. Where one double is not enough, two are: their sum has about 106 bits (T. J. Dekker, "A
//! floating-point technique for extending the available precision", Numerische Mathematik 18, 1971).

/// The largest power of ten that a double holds exactly.
const LARGEST: i32 = 22;

/// The largest integer below which a double holds all of them.
const EXACT: u64 = 1 << 53;

/// Two doubles whose sum is meant.
#[derive(Clone, Copy)]
struct Pair(f64, f64);

impl Pair {
    fn of(high: f64, low: f64) -> Self {
        let sum = high + low;
        Self(sum, low - (sum - high))
    }

    fn product(a: f64, b: f64) -> Self {
        let halves = |x: f64| {
            let scaled = x * 134_217_729.0;
            let high = scaled - (scaled - x);
            (high, x - high)
        };
        let ((a_high, a_low), (b_high, b_low)) = (halves(a), halves(b));
        let high = a * b;
        Self(high, ((a_high * b_high - high) + a_high * b_low + a_low * b_high) + a_low * b_low)
    }

    fn times(self, factor: f64) -> Self {
        let Self(high, low) = Self::product(self.0, factor);
        Self::of(high, low + self.1 * factor)
    }

    fn over(self, divisor: f64) -> Self {
        let quotient = self.0 / divisor;
        let Self(high, low) = Self::product(quotient, divisor);
        Self::of(quotient, ((self.0 - high) - low + self.1) / divisor)
    }

    /// Times ten to a power.
    fn scale(mut self, mut power: i32) -> Self {
        while power > LARGEST {
            (self, power) = (self.times(ten(LARGEST)), power - LARGEST);
        }
        while power < -LARGEST {
            (self, power) = (self.over(ten(LARGEST)), power + LARGEST);
        }
        if power < 0 { self.over(ten(-power)) } else { self.times(ten(power)) }
    }
}

/// Ten to a power of at most [`LARGEST`]: exact, because every step is.
fn ten(power: i32) -> f64 {
    let (mut value, mut square, mut left) = (1.0, 10.0, power);
    while left > 0 {
        if left & 1 == 1 {
            value *= square;
        }
        square *= square;
        left >>= 1;
    }
    value
}

/// The number nearest to these digits times ten to a power: exactly where `digits` is below 2^53 and the power small, and
/// for all but the ends of the range in practice.
pub(super) fn join(digits: u64, power: i32) -> f64 {
    if digits == 0 || power < -345 {
        return 0.0;
    }
    if power > 309 {
        return f64::INFINITY;
    }
    if digits <= EXACT && (0..=LARGEST).contains(&power) {
        return digits as f64 * ten(power);
    }
    if digits <= EXACT && (-LARGEST..0).contains(&power) {
        return digits as f64 / ten(-power);
    }
    let high = digits as f64;
    // What rounding has taken away or added, which is small.
    let low = digits.wrapping_sub(high as u64) as i64 as f64;
    // Pairs are exact as long as nothing on the way is near the end of the range.
    let inner = power.clamp(-270, 280);
    let Pair(high, low) = Pair::of(high, low).scale(inner);
    let mut value = high + low;
    for _ in inner..power {
        value *= 10.0;
    }
    for _ in power..inner {
        value /= 10.0;
    }
    value
}

/// A positive number times ten to a power, as the nearest integer.
fn round(value: f64, power: i32) -> u64 {
    let Pair(high, low) = Pair(value, 0.0).scale(power);
    // Beyond 15 digits both parts have whole numbers in them.
    let whole = high as u64;
    let rest = (high - whole as f64) + low;
    let rest = if rest < -0.5 { rest - 0.5 } else { rest + 0.5 };
    whole.saturating_add_signed(rest as i64)
}

/// The fewest digits, with a power of ten, that read back as the same positive number, or as the same `f32`. No digit at
/// the end is 0.
fn shortest(value: f64, single: bool) -> (u64, i32) {
    // The power of ten of the first digit, from that of two: 77/256 is a little less than log10(2).
    let first = ((value.to_bits() >> 52) as i32 - 1023) * 77 / 256 - i32::from(value < 1.0);
    let (mut digits, mut power) = (0, 0);
    let (few, most) = if single { (6, 9) } else { (15, 17) };
    for count in few..=most {
        power = first + 1 - count;
        digits = round(value, -power);
        // The estimate is one or two too small at times.
        while digits >= 10_u64.pow(count.unsigned_abs()) {
            power += 1;
            digits = round(value, -power);
        }
        let read = join(digits, power);
        if read == value || (single && read as f32 == value as f32) {
            break;
        }
    }
    while digits != 0 && digits.is_multiple_of(10) {
        (digits, power) = (digits / 10, power + 1);
    }
    (digits, power)
}

/// Writes an integer.
pub(super) fn write_integer(to: &mut Vec<u8>, mut value: u64) {
    let begin = to.len();
    loop {
        to.push(b'0' + (value % 10) as u8);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    if let Some(digits) = to.get_mut(begin..) {
        digits.reverse();
    }
}

/// Writes a number, with a point or an exponent; `null` for what JSON has no number for.
pub(super) fn write_float(to: &mut Vec<u8>, value: f64, single: bool) {
    if !value.is_finite() {
        return to.extend(b"null");
    }
    if value.is_sign_negative() {
        to.push(b'-');
    }
    if value == 0.0 {
        return to.extend(b"0.0");
    }
    let (digits, power) = shortest(value.abs(), single);
    let begin = to.len();
    write_integer(to, digits);
    let length = (to.len() - begin) as i32;
    // How many digits are before the point.
    let point = length + power;
    let mut dot = |at: i32| to.insert(begin + at.unsigned_abs() as usize, b'.');
    match point {
        // 1200.0
        _ if power >= 0 && point <= 16 => {
            to.extend((0..power).map(|_| b'0'));
            to.extend(b".0");
        }
        // 12.5
        1..=16 => dot(point),
        // 0.00125
        -4..=0 => {
            let zeros = (point..0).map(|_| b'0');
            drop(to.splice(begin..begin, b"0.".iter().copied().chain(zeros)));
        }
        // 1.25e-9
        _ => {
            if length > 1 {
                dot(1);
            }
            to.push(b'e');
            if point < 1 {
                to.push(b'-');
            }
            write_integer(to, u64::from((point - 1).unsigned_abs()));
        }
    }
}
