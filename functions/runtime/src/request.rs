//! Events as HTTP requests, for components that handle nothing else.
//!
//! A request on a route is what it was. Any other event is a POST of its payload to its subject, with the attributes of
//! CloudEvents in its headers (HTTP protocol binding 1.0.2, section 3.1: binary content mode).

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use holm_core::{Event, Source, Timestamp};

use crate::fields::{Fields, MAX_HEADERS, cost, is_forbidden, is_name, is_value};

/// Who is asked, where nobody said.
const AUTHORITY: &str = "holm";

/// The head of a request.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: Arc<str>,
    pub(crate) path_with_query: String,
    pub(crate) authority: Arc<str>,
    pub(crate) headers: Arc<Fields>,
}

impl Request {
    pub(crate) fn of(event: &Event) -> Self {
        let is_http = event.source == Source::Http;
        let attribute = |name: &str| event.attributes.iter().find(|(key, _)| &**key == name).map(|(_, value)| value);
        let given = |name: &str| attribute(name).filter(|_| is_http).cloned();
        let mut headers = Headers::default();
        // The node's own come first: what clients send must not leave them without room, nor pass for them.
        headers.add("holm-event-id", &encoded(&event.id.0, is_printable));
        headers.add("holm-attempt", &event.attempt.to_string());
        if let Some(content_type) = &event.content_type {
            headers.add("content-type", content_type);
        }
        let path_with_query = if is_http {
            for (name, value) in &event.attributes {
                if let Some(name) = name.strip_prefix("header.")
                    && !["holm-event-id", "holm-attempt", "content-type"].contains(&name)
                {
                    headers.add(name, value);
                }
            }
            match given("query") {
                Some(query) => format!("{}?{query}", event.subject),
                None => event.subject.to_string(),
            }
        } else {
            headers.add("content-length", &event.data.len().to_string());
            headers.add("ce-specversion", "1.0");
            headers.add("ce-id", &encoded(&event.id.0, is_printable));
            headers.add("ce-source", &format!("holm:{}", event.source.as_str()));
            headers.add("ce-type", &format!("holm.{}", event.source.as_str()));
            headers.add("ce-subject", &encoded(&event.subject, is_printable));
            headers.add("ce-time", &rfc3339(event.time));
            for (name, value) in &event.attributes {
                headers.add(&format!("holm-attribute-{name}"), &encoded(value, is_printable));
            }
            format!("/{}", encoded(event.subject.trim_start_matches('/'), is_of_path))
        };
        Self {
            method: given("method").unwrap_or_else(|| "POST".into()),
            path_with_query,
            authority: given("header.host").unwrap_or_else(|| AUTHORITY.into()),
            headers: Arc::new(headers.fields),
        }
    }
}

/// Headers up to what a guest may have of them; what is no header, or is of the connection, is left out.
#[derive(Default)]
struct Headers {
    fields: Fields,
    bytes: usize,
}

impl Headers {
    fn add(&mut self, name: &str, value: &str) {
        let bytes = self.bytes + cost(name, value.as_bytes());
        if is_name(name) && is_value(value.as_bytes()) && !is_forbidden(name) && bytes <= MAX_HEADERS {
            self.bytes = bytes;
            self.fields.push((name.to_owned(), Bytes::from(value.to_owned())));
        }
    }
}

/// What stands for itself in the value of an attribute (HTTP protocol binding for CloudEvents 1.0.2, section 3.1.3.2).
fn is_printable(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%')
}

/// `pchar` and `/` (RFC 3986, section 3.3).
fn is_of_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte)
}

/// Percent-encoded but for the bytes that `stands` for themselves.
fn encoded(text: &str, stands: fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if stands(byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// UTC, in milliseconds. The arithmetic of days is Howard Hinnant's `civil_from_days`.
fn rfc3339(time: Timestamp) -> String {
    let (days, of_day) = (time.0.div_euclid(86_400_000), time.0.rem_euclid(86_400_000));
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", of_day % 1000)
}

#[cfg(test)]
mod tests {
    use holm_core::EventId;

    use super::*;

    fn event(source: Source, subject: &str, attributes: &[(&str, &str)]) -> Event {
        Event {
            id: EventId("e 1".into()),
            source,
            subject: subject.into(),
            content_type: Some("text/plain".into()),
            data: Bytes::from_static(b"12"),
            time: Timestamp(1_709_164_799_999),
            time_synced: true,
            attempt: 2,
            hops: 0,
            attributes: attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        }
    }

    fn header<'a>(request: &'a Request, name: &str) -> Vec<&'a str> {
        let named = request.headers.iter().filter(|(key, _)| key == name);
        named.map(|(_, value)| std::str::from_utf8(value).unwrap_or_default()).collect()
    }

    #[test]
    fn a_request_on_a_route_is_what_it_was() {
        let attributes = [
            ("method", "PUT"),
            ("query", "a=1&b=%20"),
            ("header.host", "node:8080"),
            ("header.x-it", "v"),
            ("header.holm-attempt", "9"),
            ("header.connection", "close"),
        ];
        let request = Request::of(&event(Source::Http, "/a%20b/c", &attributes));
        assert_eq!((&*request.method, &*request.path_with_query), ("PUT", "/a%20b/c?a=1&b=%20"));
        assert_eq!(&*request.authority, "node:8080");
        assert_eq!(header(&request, "x-it"), ["v"]);
        assert_eq!(header(&request, "holm-attempt"), ["2"]);
        assert_eq!(header(&request, "content-type"), ["text/plain"]);
        assert!(header(&request, "connection").is_empty() && header(&request, "ce-id").is_empty());
    }

    #[test]
    fn any_other_event_is_a_post_with_the_attributes_of_cloud_events() {
        let attributes = [("qos", "1"), ("method", "DELETE"), ("query", "x"), ("header.host", "h"), ("a b", "c")];
        let request = Request::of(&event(Source::Mqtt, "site/gauge 1/ä?", &attributes));
        assert_eq!((&*request.method, &*request.authority), ("POST", "holm"));
        assert_eq!(request.path_with_query, "/site/gauge%201/%C3%A4%3F");
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "e%201"),
            ("ce-source", "holm:mqtt"),
            ("ce-type", "holm.mqtt"),
            ("ce-subject", "site/gauge%201/%C3%A4?"),
            ("ce-time", "2024-02-28T23:59:59.999Z"),
            ("content-length", "2"),
            ("holm-attribute-qos", "1"),
            ("holm-attribute-method", "DELETE"),
        ] {
            assert_eq!(header(&request, name), [value], "{name}");
        }
        assert!(!request.headers.iter().any(|(name, _)| name.contains(' ')));
    }

    #[test]
    fn headers_end_where_a_guest_may_have_no_more() {
        let long = "v".repeat(1000);
        let attributes: Vec<(&str, &str)> = (0..1000).map(|_| ("many", long.as_str())).collect();
        let request = Request::of(&event(Source::Mqtt, "t", &attributes));
        let bytes: usize = request.headers.iter().map(|(name, value)| cost(name, value)).sum();
        assert!((MAX_HEADERS - 2000..=MAX_HEADERS).contains(&bytes), "{bytes}");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (time, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(Timestamp(time)), text);
        }
    }
}
