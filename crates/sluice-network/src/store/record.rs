//! The records of the log, and who wrote them.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_addr::Cidr;

use super::state::Snapshot;
use crate::identity::{AttachmentId, InterfaceName, PodRef};

/// One boot of the machine: the text of `/proc/sys/kernel/random/boot_id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(String);

/// A process that was not confused with a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot (field 22 of `/proc/<pid>/stat`).
    pub start: u64,
}

/// The share of addresses of one family that a node gives out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRange {
    /// The node's pod CIDR.
    pub subnet: Cidr,
    /// Never given out; `.1` or `::1` of the subnet if absent (as host-local does).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A port of the node that is forwarded to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// IP protocol number: 6, 17 or 132.
    pub protocol: u8,
    /// One address of the node, or all of them.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// What one attachment holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Who holds it.
    pub attachment: AttachmentId,
    /// The CNI network's name.
    pub network: String,
    /// The pod, if known.
    pub pod: Option<PodRef>,
    /// At most one address per family, primary family first.
    pub addresses: Vec<IpAddr>,
    /// The host end of the veth.
    pub host_interface: InterfaceName,
    /// Its host ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

/// The life of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// INTENT is written: kernel objects may or may not exist, and only `writer` works on them.
    Preparing {
        /// Who rolls it forward.
        writer: Writer,
    },
    /// COMMIT is written: the attachment is complete.
    Committed,
    /// RELEASE-INTENT is written: kernel objects may or may not be gone.
    Releasing {
        /// Who deletes.
        writer: Writer,
    },
}

/// One record: a change, the boot in which it was made, and when (milliseconds since boot).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) boot: BootId,
    pub(super) at: u64,
    #[serde(flatten)]
    pub(super) change: Change,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum Change {
    /// The whole state at the time the log was rewritten; only at its head.
    Snapshot { state: Snapshot },
    /// The node's pod CIDRs as the agent knows them.
    Ranges { ranges: Vec<PodRange> },
    /// INTENT.
    Intent { reservation: Reservation, writer: Writer },
    /// COMMIT.
    Commit { attachment: AttachmentId },
    /// A complete attachment that was found in the kernel.
    Adopted { reservation: Reservation },
    /// RELEASE-INTENT.
    ReleaseIntent { attachment: AttachmentId, writer: Writer },
    /// RELEASED; `flushed` tells whether no conntrack entry of the addresses is left.
    Released { attachment: AttachmentId, flushed: bool },
    /// The conntrack entries of these freed addresses are gone now.
    Flushed { addresses: Vec<IpAddr> },
}

impl BootId {
    /// The boot the machine is in.
    ///
    /// # Errors
    /// `/proc` is not readable.
    pub fn current() -> std::io::Result<Self> {
        Ok(Self(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned()))
    }

    /// A boot id from elsewhere.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Writer {
    /// The calling process.
    ///
    /// # Errors
    /// `/proc` is not readable.
    pub fn current() -> std::io::Result<Self> {
        let pid = std::process::id();
        let start = start_of(pid)?.ok_or_else(|| std::io::Error::other("unreadable /proc/self/stat"))?;
        Ok(Self { pid, start })
    }

    /// Whether the process still runs. A zombie runs no more; an unreadable `/proc` counts as running, because
    /// rolling back the work of a live writer would be worse than leaving an intent.
    #[must_use]
    pub fn is_alive(self) -> bool {
        match start_of(self.pid) {
            Ok(start) => start == Some(self.start),
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }
}

impl Phase {
    /// The process that must finish what it began, if any.
    #[must_use]
    pub fn writer(self) -> Option<Writer> {
        match self {
            Self::Preparing { writer } | Self::Releasing { writer } => Some(writer),
            Self::Committed => None,
        }
    }

    /// The phase as a word for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Preparing { .. } => "being prepared",
            Self::Committed => "committed",
            Self::Releasing { .. } => "being released",
        }
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = match self.protocol {
            6 => "tcp",
            17 => "udp",
            132 => "sctp",
            _ => "protocol",
        };
        match self.address {
            Some(address) => write!(f, "{protocol} {address} port {}", self.port),
            None => write!(f, "{protocol} port {}", self.port),
        }
    }
}

impl HostPort {
    /// Whether two host ports would take the same packets.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.protocol == other.protocol
            && self.port == other.port
            && (self.address.is_none() || other.address.is_none() || self.address == other.address)
    }
}

/// The start time of a process that is not dead, `None` for a zombie or an unreadable line.
fn start_of(pid: u32) -> std::io::Result<Option<u64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command name in field 2 may hold blanks and parentheses; the last `)` ends it.
    let Some((_, fields)) = stat.rsplit_once(')') else { return Ok(None) };
    let mut fields = fields.split_ascii_whitespace();
    if matches!(fields.next(), Some("Z" | "X" | "x") | None) {
        return Ok(None);
    }
    // The state was field 3; the start time is field 22.
    Ok(fields.nth(18).and_then(|ticks| ticks.parse().ok()))
}

/// Time since boot, counting suspend; the same for every process of the machine.
pub(super) fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
