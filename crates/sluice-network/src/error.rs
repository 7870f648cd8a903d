//! What can go wrong when a pod or a node is connected.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use sluice_addr::{Cidr, Family};
use thiserror::Error;

use crate::identity::AttachmentId;
use crate::overlay::MacAddress;

/// An operation of this crate that failed. [`NetworkError::cni_code`] gives the number a CNI runtime sees.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// A name from outside that the kernel or CNI does not accept.
    #[error("{value:?} is not a valid {what}")]
    Identity {
        /// What it should have been.
        what: &'static str,
        /// What was given, cut at 64 characters.
        value: String,
    },
    /// The attachment, or a link that it needs, is there already.
    #[error("attachment {attachment} already exists ({what}); delete it first")]
    Exists {
        /// The attachment that was asked for.
        attachment: AttachmentId,
        /// What is in the way.
        what: String,
    },
    /// The store knows no such attachment.
    #[error("no attachment {0} in the store")]
    Unknown(AttachmentId),
    /// The attachment is in another phase of its life than the call needs.
    #[error("attachment {attachment} is {phase}; cannot {operation}")]
    Phase {
        /// The attachment.
        attachment: AttachmentId,
        /// Its phase.
        phase: &'static str,
        /// What was asked for.
        operation: &'static str,
    },
    /// No pod CIDR was published for a family, or none at all.
    #[error("this node has no pod CIDR yet; the agent publishes it when the Node object has one")]
    NoRange,
    /// All addresses of a range are taken.
    #[error("no free {family} address in {range}: {used} in use, {cooling} waiting to be flushed or cooling")]
    NoAddress {
        /// The family.
        family: Family,
        /// The node's pod CIDR.
        range: Cidr,
        /// Addresses of the range in use.
        used: usize,
        /// Addresses of the range that are not given out again yet.
        cooling: usize,
    },
    /// A requested address cannot be given.
    #[error("address {address} cannot be given out: {reason}")]
    Address {
        /// The address asked for.
        address: IpAddr,
        /// Why not.
        reason: &'static str,
    },
    /// Another attachment owns a host port.
    #[error("host port {port} is in use by {owner}")]
    HostPort {
        /// Protocol, address and port.
        port: String,
        /// Who has it.
        owner: AttachmentId,
    },
    /// A file of the store could not be used.
    #[error("cannot {operation} the attachment store at {path:?}")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record is larger than the store's limit.
    #[error("a store record of {0} bytes is over the limit")]
    RecordSize(usize),
    /// A namespace could not be entered, or a socket not opened in it.
    #[error("cannot {operation} in the namespace of {of}")]
    Namespace {
        /// What was tried.
        operation: &'static str,
        /// Whose namespace.
        of: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A network setting could not be written.
    #[error("cannot write the network settings of {of}")]
    Sysctl {
        /// Whose settings.
        of: String,
        /// Why; the text names the setting.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a change, or could not be read.
    #[error("cannot {operation} {object}")]
    Kernel {
        /// What was tried.
        operation: &'static str,
        /// Which link, address, route or neighbour.
        object: String,
        /// What the kernel said.
        #[source]
        source: Box<sluice_netlink::Error>,
    },
    /// A link disappeared while it was worked on, or was never there.
    #[error("there is no link {0}")]
    NoLink(String),
    /// Another service proxy is at work.
    #[error("{0} exists: kube-proxy runs here, and the lab's proxy does not start beside it")]
    OtherProxy(&'static str),
    /// Something else keeps changing a MAC.
    #[error("link {link} does not keep its MAC {wanted}; does another program manage it?")]
    Mac {
        /// The host end.
        link: String,
        /// What it should be.
        wanted: MacAddress,
    },
}

impl NetworkError {
    pub(crate) fn identity(what: &'static str, value: &str) -> Self {
        Self::Identity { what, value: value.chars().take(64).collect() }
    }

    pub(crate) fn kernel(
        operation: &'static str,
        object: impl Into<String>,
        source: sluice_netlink::Error,
    ) -> Self {
        Self::Kernel { operation, object: object.into(), source: Box::new(source) }
    }

    pub(crate) fn gone(link: &str) -> Self {
        Self::NoLink(link.to_owned())
    }

    /// The CNI error code (networking 4.4): 4 environment, 5 I/O, 7 configuration, 11 try again later, 100 no
    /// free address, 101 already exists, 103 host port in use, 999 internal.
    #[must_use]
    pub fn cni_code(&self) -> u32 {
        match self {
            Self::Identity { .. } => 4,
            Self::Store { .. }
            | Self::Namespace { .. }
            | Self::Sysctl { .. }
            | Self::Kernel { .. }
            | Self::NoLink(_)
            | Self::Mac { .. } => 5,
            Self::Address { .. } => 7,
            Self::NoRange => 11,
            Self::NoAddress { .. } => 100,
            Self::Exists { .. } => 101,
            Self::HostPort { .. } => 103,
            Self::Unknown(_) | Self::OtherProxy(_) | Self::Phase { .. } | Self::RecordSize(_) => 999,
        }
    }
}
