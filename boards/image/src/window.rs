//! A part of a file, such as a partition of a card, as if it were a file.

use std::io::{self, Read, Seek, SeekFrom, Write};

/// See the module. Nothing beyond it is read or written.
pub(crate) struct Window<F> {
    file: F,
    start: u64,
    length: u64,
    at: u64,
}

impl<F: Seek> Window<F> {
    pub(crate) fn new(file: F, start: u64, length: u64) -> Self {
        Self { file, start, length, at: 0 }
    }

    /// Goes to where the next byte is, and says how many of `wanted` there are.
    fn go(&mut self, wanted: usize) -> io::Result<usize> {
        self.file.seek(SeekFrom::Start(self.start + self.at))?;
        let left = self.length.saturating_sub(self.at);
        Ok(wanted.min(usize::try_from(left).unwrap_or(usize::MAX)))
    }
}

impl<F: Read + Seek> Read for Window<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.go(buffer.len())?;
        let count = self.file.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<F: Write + Seek> Write for Window<F> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let most = self.go(buffer.len())?;
        let count = self.file.write(buffer.get(..most).unwrap_or_default())?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl<F: Seek> Seek for Window<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn nothing_beyond_the_window_is_read_or_written() {
        let mut file = Cursor::new(vec![b'.'; 10]);
        let mut window = Window::new(&mut file, 3, 4);
        assert_eq!(window.write(b"abcdef").unwrap(), 4);
        assert_eq!(window.write(b"gh").unwrap(), 0);
        window.seek(SeekFrom::End(-2)).unwrap();
        let mut rest = String::new();
        window.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "cd");
        assert!(window.seek(SeekFrom::Current(-5)).is_err());
        assert_eq!(file.into_inner(), b"...abcd...");
    }
}
