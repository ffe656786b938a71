//! What browsers are told to refuse, and whom forms are taken from.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;

/// Files of ours and nothing else: no script or style inside a page, nothing from elsewhere, no frame around us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// No `Strict-Transport-Security`: there is no plain HTTP here to fall back to, and for a name like `localhost` it would lock the
/// browser out of everybody else's plain servers. `Referrer-Policy` is `same-origin` because with `no-referrer` forms come without
/// their origin.
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];

/// [`guard`], for `map_response`.
pub(super) async fn guarded(response: Response) -> Response {
    guard(response)
}

/// With the headers that every answer has. Pages are not kept by anybody, unless they say so themselves.
pub(super) fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether a form was sent by a page of this origin. Browsers say so with every form; what says nothing is no browser, and has
/// no business with a form.
pub(super) fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        // Only HTTPS is served. Behind something that ends TLS and changes the port, the host is what the browser asked for.
        (Some(origin), Some(host)) => {
            origin.strip_prefix("https://").is_some_and(|from| from.eq_ignore_ascii_case(host))
        }
        (Some(_), None) => false,
        (None, _) => text(HeaderName::from_static("sec-fetch-site")) == Some("same-origin"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &[(&str, &str)], expected: bool) {
        let pairs = given.iter().map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        });
        assert_eq!(is_from_here(&pairs.collect()), expected, "{given:?}");
    }

    #[test]
    fn forms_are_taken_from_our_own_pages_alone() {
        check(&[("origin", "https://holm:8443"), ("host", "holm:8443")], true);
        check(&[("origin", "https://holm:8443"), ("host", "holm:8443"), ("sec-fetch-site", "same-origin")], true);
        check(&[("origin", "https://evil"), ("host", "holm:8443")], false);
        check(&[("origin", "http://holm:8443"), ("host", "holm:8443")], false);
        check(&[("origin", "https://holm:8443"), ("host", "holm")], false);
        check(&[("origin", "https://holm:8443.evil"), ("host", "holm:8443")], false);
        check(&[("origin", "null"), ("host", "holm:8443"), ("sec-fetch-site", "same-origin")], false);
        check(&[("origin", "https://holm:8443")], false);
        check(&[("host", "holm:8443"), ("sec-fetch-site", "same-origin")], true);
        check(&[("host", "holm:8443"), ("sec-fetch-site", "cross-site")], false);
        check(&[("host", "holm:8443")], false);
    }
}
