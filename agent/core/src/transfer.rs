//! What is said on a bus: the parts of one transfer, which nobody else can come between.

/// One part of a transfer on an I2C bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum I2cPart {
    /// Bytes to send.
    Write(Vec<u8>),
    /// How many bytes to ask for.
    Read(usize),
}

/// One part of a transfer with an SPI device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpiPart {
    /// How many bytes to ask for.
    Read(usize),
    /// Bytes to send.
    Write(Vec<u8>),
    /// Bytes to send while as many are read.
    Transfer(Vec<u8>),
    /// A pause in nanoseconds.
    Delay(u32),
}

impl I2cPart {
    /// How many bytes it reads, if it reads.
    pub fn reads(&self) -> Option<usize> {
        if let Self::Read(length) = self { Some(*length) } else { None }
    }
}

impl SpiPart {
    /// How many bytes it reads, if it reads.
    pub fn reads(&self) -> Option<usize> {
        match self {
            Self::Read(length) => Some(*length),
            Self::Transfer(bytes) => Some(bytes.len()),
            Self::Write(_) | Self::Delay(_) => None,
        }
    }
}
