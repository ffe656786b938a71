//! What people type, as numbers: the first of a chain. Its answer is the event of `chain-total`.

use holm_function::prelude::*;
use serde::Serialize;

/// What `chain-total` gets.
#[derive(Serialize)]
struct Amount {
    cents: i64,
}

/// `12.5` is 1250 cents, whatever separates the parts.
fn cents(text: &str, separators: &str) -> Option<i64> {
    let (whole, part) = text.split_once(|letter| separators.contains(letter)).unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > 2 || !digits(whole) || !digits(part) {
        return None;
    }
    [whole, part, &"00"[part.len()..]].concat().parse().ok()
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let text = event.text()?.trim();
    let separators = config::text("separators")?.unwrap_or_else(|| ".,".to_owned());
    // A dead letter keeps the event: it can be replayed once there is a version that knows better.
    let cents = cents(text, &separators).ok_or_else(|| Failure::reject([text, " is no amount"].concat()))?;
    Ok(Some(Payload::json(&Amount { cents })?))
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_with_either_separator_and_never_rounded() {
        for (text, expected) in [
            ("12", Some(1200)),
            ("12.5", Some(1250)),
            ("0,07", Some(7)),
            ("1.005", None),
            ("", None),
            (".5", None),
            ("-1", None),
            ("1.2.3", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(cents(text, ".,"), expected, "{text}");
        }
        assert_eq!(cents("0,07", "."), None);
    }
}
