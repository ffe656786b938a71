//! `holm explain CODE`: what an error means and what to do about it, from the pages of this release.

use holm_core::ErrorCode;

use crate::embedded::PAGES;
use crate::failure::Failure;
use crate::screen::Screen;
use crate::table::list;

/// See `holm explain --help`.
#[derive(clap::Args)]
pub(crate) struct Explain {
    /// As an error names it; without one, all are listed
    code: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(crate) fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let Some(code) = &self.code else { return self.all(screen) };
        let page = ErrorCode::parse(code).and_then(page).ok_or_else(|| {
            Failure::new(format!("there is no error `{code}`")).next("see what there is with `holm explain`")
        })?;
        match self.json {
            true => screen.json(&serde_json::json!({ "code": code, "about": about(page), "page": page })),
            false => screen.text(page),
        }
    }

    fn all(&self, screen: &mut Screen) -> Result<(), Failure> {
        let all = ErrorCode::ALL.iter().filter_map(|code| Some((code.as_str(), about(page(*code)?).to_owned())));
        if self.json {
            let rows: Vec<_> = all.map(|(code, about)| serde_json::json!({ "code": code, "about": about })).collect();
            return screen.json(&serde_json::json!({ "errors": rows }));
        }
        let text = list(&screen.look, &all.collect::<Vec<_>>());
        screen.text(&text)
    }
}

fn page(code: ErrorCode) -> Option<&'static str> {
    PAGES.iter().find(|(name, _)| *name == code.as_str()).map(|(_, page)| *page)
}

/// What stands in a page's first line after its code.
fn about(page: &str) -> &str {
    page.lines().next().and_then(|line| line.split_once(": ")).map(|(_, about)| about).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        for code in ErrorCode::ALL {
            let page = page(*code).unwrap_or_default();
            assert!(page.starts_with(&format!("# {code}: ")), "docs/reference/errors/{code}.md does not begin with it");
            assert!(!about(page).is_empty() && page.contains("\n## What to do\n"), "{code}: {page}");
        }
        for (name, _) in PAGES {
            assert!(ErrorCode::parse(name).is_some(), "docs/reference/errors/{name}.md is of no code");
        }
    }
}
