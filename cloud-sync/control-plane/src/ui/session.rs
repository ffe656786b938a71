//! Signing in with an operator's token, and out again.
//!
//! # Invariants
//!
//! 1. A cookie holds a secret of its own, not the token; here only its hash is kept, with an end.
//! 2. A session ends with its time, by signing out, and with the token that it was opened with.
//! 3. A form is taken from a page of ours within the session that the page was made for: the browser says where it comes from,
//!    and the form holds what only that page knows.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, RawQuery, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use holm_core::Timestamp;
use maud::{Markup, html};

use super::failure::Failure;
use super::frame::bare;
use super::guard::is_from_here;
use crate::CloudError;
use crate::api::body::Body;
use crate::api::fields::{Fields, encode};
use crate::plane::Plane;
use crate::records::{Operator, Role};
use crate::secret::{Hash, Secret};

/// The cookie. With this prefix a browser takes it over TLS only, for this host and all of its paths.
const COOKIE: &str = "__Host-holm";

/// Seconds that a session lasts: a working day.
const TERM: i64 = 12 * 3_600;

/// Bytes of a form.
const MAX_FORM: usize = 16 << 10;

/// Who looks at a page.
pub(super) struct Session {
    pub(super) operator: Operator,
    /// Goes into forms.
    pub(super) proof: String,
    hash: Hash,
}

impl Session {
    pub(super) fn is_admin(&self) -> bool {
        self.operator.role == Role::Admin
    }

    /// Whether it still lasts.
    pub(super) async fn lasts(&self, plane: &Plane) -> Result<bool, CloudError> {
        Ok(plane.records.session(self.hash, (plane.clock)()).await?.is_some())
    }
}

impl FromRequestParts<Arc<Plane>> for Session {
    type Rejection = Failure;

    /// Who is not signed in is sent to do so, and comes back.
    async fn from_request_parts(parts: &mut Parts, plane: &Arc<Plane>) -> Result<Self, Failure> {
        let cookie = cookie(&parts.headers);
        if let Some(secret) = cookie {
            let hash = Hash::of(secret);
            if let Some(operator) = plane.records.session(hash, (plane.clock)()).await? {
                return Ok(Self { operator, proof: proof(secret), hash });
            }
        }
        let ended = if cookie.is_some() { "&ended=1" } else { "" };
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        Err(Failure::go(format!("/login?next={}{ended}", encode(path))))
    }
}

/// A form that an admin has sent from a page of ours.
pub(super) struct Form {
    pub(super) session: Session,
    pub(super) fields: Fields,
}

impl FromRequest<Arc<Plane>> for Form {
    type Rejection = Failure;

    async fn from_request(request: Request, plane: &Arc<Plane>) -> Result<Self, Failure> {
        let (session, fields) = of_session(request, plane).await?;
        if !session.is_admin() {
            return Err(Failure::only_admins(&session.operator.name));
        }
        Ok(Self { session, fields })
    }
}

async fn of_session(request: Request, plane: &Arc<Plane>) -> Result<(Session, Fields), Failure> {
    let (mut parts, body) = request.into_parts();
    if !is_from_here(&parts.headers) {
        return Err(Failure::forged("It was sent by a page of another site."));
    }
    let session = Session::from_request_parts(&mut parts, plane).await?;
    let mut fields = read(Request::from_parts(parts, body)).await?;
    let given: Option<String> = fields.parse("proof");
    // Hashes, so that how long it takes to compare tells nothing.
    if given.map(Hash::of) != Some(Hash::of(&session.proof)) {
        return Err(Failure::forged("The page that it was sent from is not of this session."));
    }
    Ok((session, fields))
}

async fn read(request: Request) -> Result<Fields, Failure> {
    let Body::<MAX_FORM>(body) = Body::from_request(request, &()).await?;
    Ok(Fields::of_query(std::str::from_utf8(&body).ok()))
}

/// The operator whose session the cookie of a request is of; for the API.
pub(crate) async fn signed_in(headers: &HeaderMap, plane: &Plane) -> Result<Option<Operator>, CloudError> {
    let Some(secret) = cookie(headers) else { return Ok(None) };
    plane.records.session(Hash::of(secret), (plane.clock)()).await
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value).filter(|value| !value.is_empty())
}

/// Follows from the secret and does not lead to it.
fn proof(secret: &str) -> String {
    Hash::of(format!("form:{secret}")).hex()
}

/// `?next=&ended=`.
pub(super) async fn page(
    State(plane): State<Arc<Plane>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let mut fields = Fields::of_query(query.as_deref());
    let next = next(&mut fields);
    let ended = fields.parse::<String>("ended").is_some();
    if signed_in(&headers, &plane).await?.is_some() {
        return Ok(Redirect::to(&next).into_response());
    }
    let told = if ended { Some("Your session has ended. Sign in again to go on where you were.") } else { None };
    Ok(form(&next, told).into_response())
}

/// `token` and `next`.
pub(super) async fn sign_in(State(plane): State<Arc<Plane>>, request: Request) -> Result<Response, Failure> {
    if !is_from_here(request.headers()) {
        return Err(Failure::forged("It was sent by a page of another site.").next("/login", "Sign in here"));
    }
    let mut fields = read(request).await?;
    let next = next(&mut fields);
    let token: String = fields.parse("token").unwrap_or_default();
    let (secret, now) = (Secret::make()?, (plane.clock)());
    let ends = Timestamp(now.0 + TERM * 1_000);
    let opened = plane.records.open_session(Hash::of(token.trim()), secret.hash(), now, ends).await?;
    let Some(operator) = opened else {
        let told = "This token lets nobody in. Look whether all of it was copied, and of this control plane.";
        return Ok((StatusCode::UNAUTHORIZED, form(&next, Some(told))).into_response());
    };
    tracing::info!(operator = operator.name, "signed in");
    let cookie = format!("{COOKIE}={}; Path=/; Max-Age={TERM}; HttpOnly; Secure; SameSite=Strict", secret.text());
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(&next)).into_response())
}

pub(super) async fn sign_out(State(plane): State<Arc<Plane>>, request: Request) -> Result<Response, Failure> {
    let (session, _) = of_session(request, &plane).await?;
    plane.records.close_session(session.hash, session.operator.name, (plane.clock)()).await?;
    let cookie = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Strict");
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

/// Where to go afterwards: to a page of ours, whoever made the link.
fn next(fields: &mut Fields) -> String {
    let next: Option<String> = fields.parse("next");
    let is_ours = |path: &String| {
        path.starts_with('/')
            && !path.starts_with("//")
            && !path.contains('\\')
            && path.bytes().all(|byte| byte.is_ascii_graphic())
            && !["/login", "/logout", "/live/"].iter().any(|root| path.starts_with(root))
    };
    next.filter(is_ours).unwrap_or_else(|| "/".to_owned())
}

fn form(next: &str, told: Option<&str>) -> Markup {
    bare(
        "Sign in",
        html! {
            h1 { "Sign in" }
            @if let Some(told) = told { p.notice role="alert" { (told) } }
            form method="post" action="/login" {
                input type="hidden" name="next" value=(next);
                label for="token" { "Operator’s token" }
                input #token type="password" name="token" required autofocus autocomplete="current-password"
                    spellcheck="false" aria-describedby="token-help";
                p.help #token-help {
                    "The first start of " code { "holm cloud" } " has shown one. If it is lost, start it once with "
                    code { "--new-token" } "."
                }
                button { "Sign in" }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for (given, expected) in [
            ("/fleet?q=a", "/fleet?q=a"),
            ("/devices/pi3", "/devices/pi3"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/a\r\nSet-Cookie:x", "/"),
            ("/login?next=/", "/"),
            ("", "/"),
        ] {
            let mut fields = Fields::of_query(Some(&format!("next={}", encode(given))));
            assert_eq!(next(&mut fields), expected, "{given}");
        }
        assert_eq!(next(&mut Fields::of_query(None)), "/");
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let of = |text: &'static str| HeaderMap::from_iter([(header::COOKIE, header::HeaderValue::from_static(text))]);
        assert_eq!(cookie(&of("a=b; __Host-holm=xyz; c=d")), Some("xyz"));
        assert_eq!(cookie(&of("__Host-holm=")), None);
        assert_eq!(cookie(&of("holm=xyz")), None);
        assert_eq!(cookie(&HeaderMap::new()), None);
    }
}
