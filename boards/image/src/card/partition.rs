//! A partition of a card, to be read only.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::partitions::Place;

/// See the module.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) card: File,
    pub(crate) place: Place,
}

impl Partition {
    /// Fills the buffer. What is beyond the end of the partition is not there.
    pub(crate) fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = at.checked_add(buffer.len() as u64).filter(|end| *end <= self.place.bytes);
        match end {
            Some(_) => self.card.read_exact_at(buffer, self.place.start + at),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends before that")),
        }
    }

    /// Its first bytes, as many of so many as there are.
    pub(crate) fn begin(&self, most: usize) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.place.bytes).unwrap_or(usize::MAX).min(most);
        let mut bytes = vec![0; length];
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }
}
