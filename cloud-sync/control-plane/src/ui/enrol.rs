//! Tokens that let new devices in.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use holm_core::Timestamp;
use holm_protocol::GroupName;
use maud::{Markup, html};

use super::failure::Failure;
use super::frame::{Place, frame, proof};
use super::session::{Form, Session};
use super::shown::{Mood, ago, moment, state};
use crate::CloudError;
use crate::plane::Plane;
use crate::records::{Meant, TokenInfo};
use crate::secret::Secret;

/// How long a token may be good for: hours, and what that is called.
const TERMS: [(i64, &str); 3] = [(1, "1 hour"), (24, "24 hours"), (168, "7 days")];

/// Tokens that are listed.
const LISTED: usize = 100;

pub(super) async fn page(session: Session, State(plane): State<Arc<Plane>>) -> Result<Markup, Failure> {
    show(&session, &plane, html! {}).await
}

/// `group` and `hours`.
pub(super) async fn make(
    State(plane): State<Arc<Plane>>,
    headers: HeaderMap,
    Form { session, mut fields }: Form,
) -> Result<Markup, Failure> {
    let group: Option<String> = fields.parse("group");
    let group = group.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let group = group
        .map(|name| GroupName::new(&name))
        .transpose()
        .map_err(|error| Failure::from(crate::api::problem::Problem::from(error)).next("/enrol", "Back to the form"))?;
    let hours = fields.number("hours", 1, 168).unwrap_or(24);
    fields.finish()?;
    let (token, now) = (Secret::make()?, (plane.clock)());
    let expires = Timestamp(now.0 + hours * 3_600_000);
    let operator = session.operator.name.clone();
    plane.records.add_token(token.hash(), Meant::Anybody(group.clone()), now, expires, operator).await??;
    // As the browser has come here: a device that sits in the same network comes by the same way.
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let host = host.map_or_else(|| format!("localhost:{}", plane.https_port), str::to_owned);
    let hash = plane.authority.root_hash().hex();
    let command = format!("holmd enrol --cloud https://{host} --token {} --ca-hash {hash}", token.text());
    let made = html! {
        section.made aria-labelledby="made" {
            h2 #made { "Run this on the device" }
            pre tabindex="0" { code #command { (command) } }
            p {
                button.quiet type="button" data-copy="command" hidden { "Copy" }
            }
            p {
                "Good for one device"
                @if let Some(group) = &group { ", which comes into the group " strong { (group) } }
                ", until " (moment(expires)) ". It is shown this once: only its hash is kept."
            }
        }
    };
    show(&session, &plane, made).await
}

async fn show(session: &Session, plane: &Plane, made: Markup) -> Result<Markup, Failure> {
    let now = (plane.clock)();
    let tokens: Result<Vec<TokenInfo>, CloudError> = plane.records.tokens(LISTED).await;
    let (tokens, groups) = (tokens?, plane.records.groups().await?);
    let body = html! {
        h1 { "Enrol a device" }
        (made)
        @if session.is_admin() {
            form.filters method="post" action="/enrol" {
                (proof(session))
                div {
                    label for="group" { "Group" }
                    input #group name="group" list="groups" autocomplete="off" spellcheck="false" maxlength="128"
                        pattern="[A-Za-z0-9_\\-]*" placeholder="none" aria-describedby="group-help";
                    datalist #groups { @for (name, _) in &groups { option value=(name) {} } }
                }
                div {
                    label for="hours" { "Good for" }
                    select #hours name="hours" {
                        @for (hours, name) in TERMS { option value=(hours) selected[hours == 24] { (name) } }
                    }
                }
                button { "Make a token" }
            }
            p.help #group-help {
                "A token lets one device in, once. Its key is made on the device and never leaves it. "
                "Letters, digits, - and _ make a group’s name; a new name makes a new group."
            }
        } @else {
            p.empty { "You are a viewer: admins make tokens." }
        }
        section aria-labelledby="tokens" {
            h2 #tokens { "Tokens" }
            @if tokens.is_empty() { p.empty { "None was made yet." } }
            @else { div.wide { table.stack {
                thead { tr { th { "Id" } th { "For" } th { "State" } th { "Device" } th { "Made" } th { "Expires" } } }
                tbody { @for token in &tokens { tr {
                    td data-name="Id" { code { (token.id) } }
                    td data-name="For" { @match (&token.replaces, &token.group) {
                        (Some(thing), _) => { "the place of " a href={ "/devices/" (thing) } { (thing) } }
                        (None, Some(group)) => { "the group " (group) }
                        (None, None) => { "–" }
                    } }
                    td data-name="State" { @match token.used {
                        Some(_) => { (state(Mood::Quiet, "used")) }
                        None if token.expires < now => { (state(Mood::Quiet, "expired")) }
                        None => { (state(Mood::Good, "open")) }
                    } }
                    td data-name="Device" { @match &token.thing {
                        Some(thing) => a href={ "/devices/" (thing) } { (thing) },
                        None => { "–" },
                    } }
                    td data-name="Made" { (ago(token.made, now)) }
                    td data-name="Expires" { (ago(token.expires, now)) }
                } } }
            } } }
        }
    };
    Ok(frame(session, Place::Enrol, "Enrol", body))
}
