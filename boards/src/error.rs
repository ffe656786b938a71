//! What can go wrong between a node and the world.

use std::fmt;

use embedded_hal::{i2c, spi};

/// Why a sensor, a line or a bus gave no answer. Clonable, because the owner of a bus answers several who wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoardError {
    /// The configuration binds no such sensor.
    #[error("no sensor is called `{0}`")]
    UnknownSensor(String),
    /// The configuration binds no such line.
    #[error("no line is called `{0}`")]
    UnknownLine(String),
    /// The configuration binds no such bus or device.
    #[error("no bus or device is called `{0}`")]
    UnknownBus(String),
    /// A device file could not be opened.
    #[error("cannot open {what}: {reason}")]
    Open {
        /// The bus, line or file.
        what: String,
        /// What the system said.
        reason: String,
    },
    /// Somebody else holds the line.
    #[error("the line {line} is in use by {consumer}")]
    LineInUse {
        /// As the board calls it.
        line: String,
        /// As the kernel calls who holds it.
        consumer: String,
    },
    /// Nobody acknowledged at that address: the chip is absent, unpowered or hung.
    #[error("{what} does not answer")]
    NoAnswer {
        /// The sensor or the address.
        what: String,
    },
    /// Another chip answers there.
    #[error("{what} is not what was expected there: {reason}")]
    WrongChip {
        /// The sensor.
        what: String,
        /// What was read, and what was expected.
        reason: String,
    },
    /// The bus failed.
    #[error("{what}: {reason}")]
    Bus {
        /// The sensor or the address.
        what: String,
        /// How.
        reason: BusFault,
    },
    /// The answer was damaged on its way.
    #[error("{what} sent a wrong checksum")]
    Checksum {
        /// The sensor.
        what: String,
    },
    /// The answer makes no sense.
    #[error("{what} sent nonsense: {reason}")]
    Nonsense {
        /// The sensor or file.
        what: String,
        /// What.
        reason: String,
    },
    /// It took longer than it may.
    #[error("{what} took too long")]
    Timeout {
        /// The sensor.
        what: String,
    },
    /// The owner of the bus has as many requests as it may.
    #[error("{what} has too many requests waiting")]
    Busy {
        /// The bus.
        what: String,
    },
    /// Outputs are not read back as inputs, and inputs are not set.
    #[error("the line {line} is an {is}")]
    Direction {
        /// The name.
        line: String,
        /// What it is.
        is: &'static str,
    },
    /// A file of the system could not be read or written.
    #[error("cannot use {path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The board does not have this.
    #[error("{0}")]
    Unsupported(String),
    /// The node ends.
    #[error("the board has stopped")]
    Stopped,
}

/// How a transfer failed. It is the error of all our `embedded-hal` buses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusFault {
    /// Nobody acknowledged.
    NoAnswer,
    /// Two controllers spoke at the same time.
    Arbitration,
    /// A line is held: nobody can speak.
    Stuck,
    /// The transfer did not end in time.
    Timeout,
    /// The driver has used the time that one reading may take.
    Budget,
    /// The transfer is one that the adapter cannot do.
    Unsupported,
    /// What else the system said, as an error number.
    System(i32),
}

impl fmt::Display for BusFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("nobody answers"),
            Self::Arbitration => f.write_str("another controller spoke at the same time"),
            Self::Stuck => f.write_str("the bus is stuck"),
            Self::Timeout => f.write_str("the transfer timed out"),
            Self::Budget => f.write_str("the reading took too long"),
            Self::Unsupported => f.write_str("the adapter cannot do this transfer"),
            Self::System(number) => write!(f, "{}", std::io::Error::from_raw_os_error(*number)),
        }
    }
}

impl BusFault {
    /// With the name of who was spoken to.
    pub(crate) fn at(self, what: &str) -> BoardError {
        let what = what.to_owned();
        match self {
            Self::NoAnswer => BoardError::NoAnswer { what },
            Self::Timeout | Self::Budget => BoardError::Timeout { what },
            reason => BoardError::Bus { what, reason },
        }
    }
}

impl std::error::Error for BusFault {}

impl i2c::Error for BusFault {
    fn kind(&self) -> i2c::ErrorKind {
        match self {
            Self::NoAnswer => i2c::ErrorKind::NoAcknowledge(i2c::NoAcknowledgeSource::Unknown),
            Self::Arbitration => i2c::ErrorKind::ArbitrationLoss,
            Self::Stuck => i2c::ErrorKind::Bus,
            _ => i2c::ErrorKind::Other,
        }
    }
}

impl spi::Error for BusFault {
    fn kind(&self) -> spi::ErrorKind {
        spi::ErrorKind::Other
    }
}
