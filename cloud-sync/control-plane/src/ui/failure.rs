//! The page that comes instead of the one that was asked for: what is wrong, and where to go from there.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use holm_protocol::ApiErrorCode;
use maud::html;

use super::frame::bare;
use crate::CloudError;
use crate::api::problem::Problem;
use crate::records::Refused;

/// See the module. Boxed: it is rare, and travels through every `Result`.
#[derive(Debug)]
pub(super) struct Failure(Box<Inner>);

#[derive(Debug)]
enum Inner {
    Page(Told),
    /// To another page.
    Go(String),
}

#[derive(Debug)]
struct Told {
    status: StatusCode,
    title: String,
    /// Sentences.
    lines: Vec<String>,
    /// Where to go, and what that is.
    next: (String, String),
}

impl Failure {
    fn page(status: StatusCode, title: &str, lines: Vec<String>) -> Self {
        let next = ("/".to_owned(), "Go to the overview".to_owned());
        Self(Box::new(Inner::Page(Told { status, title: title.to_owned(), lines, next })))
    }

    /// With somewhere else to go than the overview.
    pub(super) fn next(mut self, path: impl Into<String>, text: impl Into<String>) -> Self {
        if let Inner::Page(told) = &mut *self.0 {
            told.next = (path.into(), text.into());
        }
        self
    }

    pub(super) fn nothing_here(what: &str) -> Self {
        let line = format!("There is no such {what}. It may have been renamed, or the address was cut off.");
        Self::page(StatusCode::NOT_FOUND, "Nothing here", vec![line])
    }

    pub(super) fn no_device(thing: &str) -> Self {
        let line = format!("No device of this control plane has the name “{}”.", cut(thing));
        Self::page(StatusCode::NOT_FOUND, "No such device", vec![line]).next("/fleet", "Look for it in the fleet")
    }

    pub(super) fn not_this_way() -> Self {
        let line = "This address takes forms from our own pages.".to_owned();
        Self::page(StatusCode::METHOD_NOT_ALLOWED, "Not this way", vec![line])
    }

    /// Sent by a page that is not ours, or is out of date.
    pub(super) fn forged(why: &str) -> Self {
        let line = "Nothing was changed. Open the page anew and try again from there.".to_owned();
        Self::page(StatusCode::FORBIDDEN, "This form was not taken", vec![why.to_owned(), line])
    }

    pub(super) fn only_admins(name: &str) -> Self {
        let lines = vec![
            format!("You are signed in as {name}, a viewer. Viewers look and change nothing."),
            "Sign in with an admin’s token to do this.".to_owned(),
        ];
        Self::page(StatusCode::FORBIDDEN, "Only admins may do this", lines)
    }

    pub(super) fn too_many_watch() -> Self {
        let line = "Close some of the pages that show live parts, then load this one again.".to_owned();
        Self::page(StatusCode::SERVICE_UNAVAILABLE, "Too many are watching", vec![line])
    }

    /// A redirect.
    pub(super) fn go(path: impl Into<String>) -> Self {
        Self(Box::new(Inner::Go(path.into())))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match *self.0 {
            Inner::Go(path) => Redirect::to(&path).into_response(),
            Inner::Page(Told { status, title, lines, next: (path, text) }) => {
                let page = bare(
                    &title,
                    html! {
                        h1 { (title) }
                        @for line in &lines { p { (line) } }
                        p { a.button href=(path) { (text) } }
                    },
                );
                (status, page).into_response()
            }
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let error = problem.error();
        let title = match error.code {
            ApiErrorCode::NotFound => "Nothing here",
            ApiErrorCode::Unavailable => "Busy",
            ApiErrorCode::Internal => "Something went wrong",
            _ => "That did not work",
        };
        let mut lines = vec![sentence(&error.message)];
        lines.extend(error.problems.iter().map(|problem| sentence(problem)));
        Self::page(problem.status(), title, lines)
    }
}

/// As it stands in a page: problems are told in lower case and without an end.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().map(|first| first.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}.", letters.as_str().replace('`', ""))
}

impl From<CloudError> for Failure {
    fn from(error: CloudError) -> Self {
        Problem::from(error).into()
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Problem::from(refused).into()
    }
}
