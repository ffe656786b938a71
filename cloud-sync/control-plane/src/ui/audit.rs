//! Who did what.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use maud::{Markup, html};

use super::failure::Failure;
use super::frame::{Place, frame};
use super::session::Session;
use super::shown::moment;
use crate::api::fields::Fields;
use crate::plane::Plane;

/// Deeds on a page.
const PAGE: usize = 100;

/// `?before=`.
pub(super) async fn page(
    session: Session,
    State(plane): State<Arc<Plane>>,
    RawQuery(query): RawQuery,
) -> Result<Markup, Failure> {
    let mut fields = Fields::of_query(query.as_deref());
    let before = fields.number("before", 0, i64::MAX);
    fields.finish()?;
    let deeds = plane.records.deeds(before, PAGE).await?;
    let next = deeds.last().filter(|_| deeds.len() >= PAGE).map(|deed| deed.id);
    let body = html! {
        h1 { "Audit" }
        p.help { "What operators and devices changed here, the latest first. Nothing is ever taken out." }
        @if deeds.is_empty() { p.empty { "Nothing more." } }
        @else { div.wide { table.stack {
            thead { tr { th { "When" } th { "Who" } th { "Did" } th { "To" } } }
            tbody { @for deed in &deeds { tr {
                td data-name="When" { (moment(deed.time)) }
                td data-name="Who" { @if deed.operator.is_empty() { span.dim { "by itself" } } @else { (deed.operator) } }
                td data-name="Did" { (deed.action) }
                td data-name="To" { (deed.object) }
            } } }
        } } }
        @if let Some(next) = next {
            nav aria-label="Older" { a.button href={ "/audit?before=" (next) } rel="next" { "Older" } }
        }
    };
    Ok(frame(&session, Place::Audit, "Audit", body))
}
