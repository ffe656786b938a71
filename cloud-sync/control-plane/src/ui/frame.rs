//! What all pages have around them.

use maud::{DOCTYPE, Markup, html};

use super::session::Session;

/// The pages of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Overview,
    Fleet,
    Rollouts,
    Results,
    Letters,
    Functions,
    Enrol,
    Audit,
}

const PLACES: [(Place, &str, &str); 8] = [
    (Place::Overview, "/", "Overview"),
    (Place::Fleet, "/fleet", "Fleet"),
    (Place::Rollouts, "/rollouts", "Rollouts"),
    (Place::Results, "/results", "Results"),
    (Place::Letters, "/dead-letters", "Dead letters"),
    (Place::Functions, "/functions", "Functions"),
    (Place::Enrol, "/enrol", "Enrol"),
    (Place::Audit, "/audit", "Audit"),
];

/// A page within the navigation.
pub(super) fn frame(session: &Session, place: Place, title: &str, body: Markup) -> Markup {
    let inside = html! {
        a.skip href="#content" { "Skip to the content" }
        header.bar {
            a.brand href="/" { img src="/assets/holm.svg" alt="" width="28" height="28"; "Holm" }
            nav aria-label="Pages" {
                @for (known, path, name) in PLACES {
                    a href=(path) aria-current=[(known == place).then_some("page")] { (name) }
                }
            }
            form.who method="post" action="/logout" {
                (proof(session))
                span { (session.operator.name) @if !session.is_admin() { " (viewer)" } }
                button.quiet { "Sign out" }
            }
        }
        main #content tabindex="-1" { (body) }
    };
    document(title, inside)
}

/// A page of its own, for who is not signed in, or has come to the wrong place.
pub(super) fn bare(title: &str, body: Markup) -> Markup {
    let inside = html! {
        main.card #content {
            p.brand { img src="/assets/holm.svg" alt="" width="28" height="28"; "Holm" }
            (body)
        }
    };
    document(title, inside)
}

/// What a form holds to show that it was sent from a page of its session.
pub(super) fn proof(session: &Session) -> Markup {
    html! { input type="hidden" name="proof" value=(session.proof); }
}

fn document(title: &str, inside: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Holm" }
                link rel="icon" href="/assets/holm.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/uplot/uPlot.min.css";
                link rel="stylesheet" href="/assets/holm.css";
                script src="/assets/uplot/uPlot.iife.min.js" defer {}
                script src="/assets/holm.js" defer {}
            }
            body { (inside) }
        }
    }
}
