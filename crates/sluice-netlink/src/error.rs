//! The crate's error.

use std::fmt;

pub use rustix::io::Errno;

use crate::nft::Refusal;

/// Why a netlink operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on the socket itself failed.
    #[error("netlink socket: {operation}")]
    Socket {
        /// The call.
        operation: &'static str,
        /// Its errno.
        #[source]
        source: Errno,
    },
    /// The kernel refused a request.
    #[error("{operation}: {errno}{}", Hint(.message))]
    Kernel {
        /// What was asked for, e.g. `add route 10.0.0.0/24`.
        operation: String,
        /// The kernel's errno.
        errno: Errno,
        /// The kernel's explanation (extended ack), where it gave one.
        message: Option<String>,
    },
    /// The object is there already (`EEXIST`).
    #[error("{operation}: exists already")]
    Exists {
        /// What was asked for.
        operation: String,
    },
    /// The object is not there (`ENOENT`, `ENODEV`, `ESRCH`, `EADDRNOTAVAIL`).
    #[error("{operation}: not found")]
    NotFound {
        /// What was asked for.
        operation: String,
    },
    /// No answer in time; the socket stays usable, a late answer is skipped.
    #[error("{operation}: the kernel did not answer in time")]
    Timeout {
        /// What was asked for.
        operation: String,
    },
    /// The receive buffer overflowed (`ENOBUFS`): messages were lost; read the state again.
    #[error("netlink receive buffer overflowed, messages were lost")]
    Overrun,
    /// The state changed during every attempt to read it.
    #[error("{operation}: the state kept changing while it was read")]
    Interrupted {
        /// What was asked for.
        operation: String,
    },
    /// Bytes that are not what the protocol says.
    #[error("malformed netlink message: {what}")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
    /// A description that cannot be programmed.
    #[error("{object}: {reason}")]
    Invalid {
        /// Chain, set or request.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel refused parts of an nftables transaction; nothing of that batch was changed.
    #[error("nftables transaction refused: {}", Refusals(.refusals))]
    Refused {
        /// The refused objects, in order, at least one.
        refusals: Vec<Refusal>,
        /// Batches of the same transaction that were committed before (a transaction larger than the send buffer is split).
        committed: usize,
    },
    /// One indivisible step of a transaction exceeds the socket's send buffer.
    #[error("{object}: one step needs {bytes} bytes, the send buffer holds {limit}")]
    TooLarge {
        /// The chain or set.
        object: String,
        /// Bytes needed.
        bytes: usize,
        /// Bytes possible.
        limit: usize,
    },
    /// Objects exist under the same name with another definition, which the kernel cannot change in place.
    #[error("cannot change in place: {}", .objects.join(", "))]
    Clash {
        /// `chain NAME: …` or `set NAME: …`.
        objects: Vec<String>,
    },
}

impl Error {
    /// The kernel's verdict on a request as an error.
    pub(crate) fn from_kernel(operation: &str, errno: Errno, message: Option<String>) -> Self {
        let operation = operation.to_owned();
        match errno {
            Errno::EXIST => Error::Exists { operation },
            Errno::NOENT | Errno::NODEV | Errno::SRCH | Errno::ADDRNOTAVAIL => Error::NotFound { operation },
            _ => Error::Kernel { operation, errno, message },
        }
    }

    /// Whether the object was there already.
    pub fn is_exists(&self) -> bool {
        matches!(self, Error::Exists { .. })
    }

    /// Whether the object was not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. })
    }
}

struct Hint<'a>(&'a Option<String>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

struct Refusals<'a>(&'a [Refusal]);

impl fmt::Display for Refusals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        for (i, refusal) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{refusal}", if i == 0 { "" } else { "; " })?;
        }
        match self.0.len().checked_sub(SHOWN) {
            Some(more) if more > 0 => write!(f, "; and {more} more"),
            _ => Ok(()),
        }
    }
}
