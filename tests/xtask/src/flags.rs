//! Command-line flags, without a library: there are few.

use std::str::FromStr;

use anyhow::{Context as _, bail};

/// The words that nobody has asked for yet.
pub struct Flags(Vec<String>);

impl Flags {
    /// Of a command line.
    pub fn new(words: impl Iterator<Item = String>) -> Self {
        // `--name=value` is `--name value`.
        let split = |word: String| match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => vec![name.to_owned(), value.to_owned()],
            _ => vec![word],
        };
        Self(words.flat_map(split).collect())
    }

    /// Whether a flag is there.
    pub fn has(&mut self, name: &str) -> bool {
        let at = self.0.iter().position(|word| word == name);
        at.map(|at| self.0.remove(at)).is_some()
    }

    /// A flag's value, if the flag is there.
    pub fn value<T: FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> anyhow::Result<Option<T>> {
        let Some(at) = self.0.iter().position(|word| word == name) else { return Ok(None) };
        self.0.remove(at);
        let text = if at < self.0.len() { Some(self.0.remove(at)) } else { None };
        let text = text.with_context(|| format!("{name} needs a value"))?;
        text.parse().map(Some).map_err(|error| anyhow::anyhow!("{name}: `{text}`: {error}"))
    }

    /// The next word that is no flag.
    pub fn word(&mut self) -> Option<String> {
        let at = self.0.iter().position(|word| !word.starts_with("--"))?;
        Some(self.0.remove(at))
    }

    /// Nothing may be left.
    pub fn finish(self) -> anyhow::Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some(word) => bail!("`{word}` is not understood; see `cargo xtask help`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_it_knows_and_refuses_the_rest() {
        let words = ["--headless", "--minutes=2", "--rate", "5", "--what"].map(str::to_owned);
        let mut flags = Flags::new(words.into_iter());
        assert!(flags.has("--headless") && !flags.has("--headless"));
        assert_eq!(flags.value::<f64>("--minutes").ok(), Some(Some(2.0)));
        assert_eq!(flags.value::<u64>("--rate").ok(), Some(Some(5)));
        assert!(flags.value::<u64>("--what").is_err());
        assert!(Flags::new(["x".to_owned()].into_iter()).finish().is_err());
    }
}
