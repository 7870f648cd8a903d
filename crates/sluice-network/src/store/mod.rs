//! The attachment and address database of a node: an append-only log that the agent and the CNI plugin share
//! (networking 3.1).
//!
//! ```text
//! Store ──transaction()──► Transaction (holds `lock`, has replayed what others appended)
//!   reserve: INTENT ─ kernel work ─ commit: COMMIT ─ … ─ begin_release: RELEASE-INTENT ─ kernel work ─ RELEASED
//! ```
//!
//! Invariants: every change is a record before it is a fact in memory; the log's first record may be a snapshot;
//! records of another boot count for the round-robin position only; no call scans a directory. Nothing is synced
//! to disk, because after a power loss no namespace is left that a lost record could describe.

mod crc32c;
mod log;
mod record;
mod state;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use sluice_addr::{Cidr, Family};

pub use self::log::Damage;
use self::log::{Log, failed};
pub use self::record::{BootId, HostPort, Phase, PodRange, Reservation, Writer};
use self::record::{Change, Record};
use self::state::State;
pub use self::state::{COOLING, Entry};
use crate::NetworkError;
use crate::identity::{AttachmentId, InterfaceName, PodRef};

/// The store of one node. Threads share it behind a mutex; processes share it by the lock in its directory.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    lock: File,
    log: Log,
    state: State,
    boot: BootId,
    writer: Writer,
    clock: fn() -> Duration,
    events: Vec<StoreEvent>,
}

/// What the store had to repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreEvent {
    /// The log was of an earlier boot and was discarded, except for the round-robin position.
    Rebooted {
        /// Records that were discarded.
        records: usize,
    },
    /// The log had a bad tail. Attachments may be missing: compare with the kernel before the next ADD.
    Damaged(Damage),
}

/// What an attachment asks of the store.
#[derive(Debug, Clone)]
pub struct ReserveRequest<'a> {
    /// Who asks.
    pub attachment: &'a AttachmentId,
    /// The CNI network's name.
    pub network: &'a str,
    /// The pod, if known.
    pub pod: Option<&'a PodRef>,
    /// The name of the host end.
    pub host_interface: &'a InterfaceName,
    /// Which addresses.
    pub addresses: AddressRequest<'a>,
    /// Host ports.
    pub host_ports: &'a [HostPort],
}

/// Which addresses an attachment gets.
#[derive(Debug, Clone, Copy)]
pub enum AddressRequest<'a> {
    /// One of each range of the node, in the order of the ranges.
    FromRanges,
    /// Exactly these, at most one per family; they must be free.
    Exactly(&'a [IpAddr]),
}

/// The store under its lock, up to date with what others wrote. The lock ends with the value.
#[derive(Debug)]
pub struct Transaction<'a> {
    store: &'a mut Store,
}

impl Store {
    /// Opens or creates the store in `directory`, replays it, and discards what an earlier boot left.
    ///
    /// # Errors
    /// The directory or a file in it cannot be used. A damaged log is not an error but an event.
    pub fn open(directory: &Path) -> Result<Self, NetworkError> {
        let boot = BootId::current().map_err(|e| failed("find the boot id for", directory, e))?;
        Self::open_in_boot(directory, boot, record::since_boot)
    }

    fn open_in_boot(directory: &Path, boot: BootId, clock: fn() -> Duration) -> Result<Self, NetworkError> {
        fs::create_dir_all(directory).map_err(|e| failed("create", directory, e))?;
        let lock = directory.join("lock");
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&lock).map_err(|e| failed("lock", &lock, e))?;
        let writer = Writer::current().map_err(|e| failed("find the writer of", directory, e))?;
        // The log is opened under the lock, else it could be a half of somebody's rewrite.
        locked(&lock, directory)?;
        let log = Log::open(directory.join("log"));
        unlock(&lock);
        let mut store = Self {
            directory: directory.to_owned(),
            lock,
            log: log?,
            state: State::default(),
            boot,
            writer,
            clock,
            events: Vec::new(),
        };
        store.transaction()?;
        Ok(store)
    }

    /// Takes the lock and replays what other processes appended.
    ///
    /// # Errors
    /// The lock or the log cannot be used.
    pub fn transaction(&mut self) -> Result<Transaction<'_>, NetworkError> {
        locked(&self.lock, &self.directory)?;
        let transaction = Transaction { store: self };
        transaction.store.catch_up()?;
        Ok(transaction)
    }

    /// What was repaired since the last call.
    pub fn take_events(&mut self) -> Vec<StoreEvent> {
        std::mem::take(&mut self.events)
    }

    fn catch_up(&mut self) -> Result<(), NetworkError> {
        if self.log.is_replaced()? {
            self.log = Log::open(self.directory.join("log"))?;
            self.state = State::default();
        }
        let (records, damage) = self.log.read_new()?;
        let mut stale = 0;
        for record in records {
            if record.boot == self.boot {
                self.state.apply(record.change, record.at);
            } else {
                self.state.apply_of_other_boot(&record.change);
                stale += 1;
            }
        }
        self.events.extend(damage.map(StoreEvent::Damaged));
        if stale > 0 {
            self.events.push(StoreEvent::Rebooted { records: stale });
            self.rewrite()?;
        }
        Ok(())
    }

    fn write(&mut self, change: Change) -> Result<(), NetworkError> {
        let record = self.record(change);
        self.log.append(&record)?;
        self.state.apply(record.change, record.at);
        if self.log.is_long() {
            self.rewrite()?;
        }
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), NetworkError> {
        let state = self.state.snapshot((self.clock)());
        self.log.rewrite(&self.record(Change::Snapshot { state: state.clone() }))?;
        self.state = State::from(state);
        Ok(())
    }

    fn record(&self, change: Change) -> Record {
        let at = u64::try_from((self.clock)().as_millis()).unwrap_or(u64::MAX);
        Record { boot: self.boot.clone(), at, change }
    }
}

impl Transaction<'_> {
    /// Publishes the node's pod CIDRs, primary family first. A CIDR that disappears keeps its attachments.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn publish_ranges(&mut self, ranges: &[PodRange]) -> Result<(), NetworkError> {
        if self.store.state.ranges() == ranges {
            return Ok(());
        }
        self.store.write(Change::Ranges { ranges: ranges.to_vec() })
    }

    /// INTENT: chooses the addresses and writes down what is about to be made.
    ///
    /// # Errors
    /// The attachment exists (101), no address is free (100), a host port is taken (103), no pod CIDR is known
    /// (11), or the record cannot be written (5).
    pub fn reserve(&mut self, request: &ReserveRequest<'_>) -> Result<Reservation, NetworkError> {
        let state = &self.store.state;
        if let Some(entry) = state.entry(request.attachment) {
            return Err(NetworkError::Exists {
                attachment: request.attachment.clone(),
                what: format!("its reservation is {}", entry.phase.name()),
            });
        }
        for (index, port) in request.host_ports.iter().enumerate() {
            let own = request.host_ports[..index].iter().any(|other| other.overlaps(*port));
            let owner = if own { Some(request.attachment) } else { state.port_owner(*port) };
            if let Some(owner) = owner {
                return Err(NetworkError::HostPort { port: port.to_string(), owner: owner.clone() });
            }
        }
        let addresses = match request.addresses {
            AddressRequest::FromRanges => self.choose()?,
            AddressRequest::Exactly(addresses) => self.check(addresses)?,
        };
        let reservation = Reservation {
            attachment: request.attachment.clone(),
            network: request.network.to_owned(),
            pod: request.pod.cloned(),
            addresses,
            host_interface: request.host_interface.clone(),
            host_ports: request.host_ports.to_vec(),
        };
        let writer = self.store.writer;
        self.store.write(Change::Intent { reservation: reservation.clone(), writer })?;
        Ok(reservation)
    }

    /// COMMIT: the kernel work of [`Transaction::reserve`] is done.
    ///
    /// # Errors
    /// The attachment is not being prepared, or the record cannot be written.
    pub fn commit(&mut self, attachment: &AttachmentId) -> Result<(), NetworkError> {
        match self.get(attachment).map(|e| e.phase) {
            None => Err(NetworkError::Unknown(attachment.clone())),
            Some(Phase::Preparing { .. }) => {
                self.store.write(Change::Commit { attachment: attachment.clone() })
            }
            Some(phase) => Err(NetworkError::Phase {
                attachment: attachment.clone(),
                phase: phase.name(),
                operation: "commit it",
            }),
        }
    }

    /// RELEASE-INTENT: the kernel objects are about to be deleted. `None` if there is no such attachment, which
    /// is success for a DEL. Also right for an attachment that is being prepared (abort, roll back).
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn begin_release(&mut self, attachment: &AttachmentId) -> Result<Option<Reservation>, NetworkError> {
        let Some(entry) = self.get(attachment) else { return Ok(None) };
        let reservation = entry.reservation.clone();
        let (attachment, writer) = (attachment.clone(), self.store.writer);
        self.store.write(Change::ReleaseIntent { attachment, writer })?;
        Ok(Some(reservation))
    }

    /// RELEASED: the kernel objects are gone; the addresses rest. `flushed` tells whether their conntrack entries
    /// are gone too; if not, they are not given out before [`Transaction::mark_flushed`].
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn finish_release(&mut self, attachment: &AttachmentId, flushed: bool) -> Result<(), NetworkError> {
        if self.get(attachment).is_none() {
            return Ok(());
        }
        self.store.write(Change::Released { attachment: attachment.clone(), flushed })
    }

    /// The conntrack entries of these freed addresses are gone.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn mark_flushed(&mut self, addresses: &[IpAddr]) -> Result<(), NetworkError> {
        if addresses.is_empty() {
            return Ok(());
        }
        self.store.write(Change::Flushed { addresses: addresses.to_vec() })
    }

    /// Enters a complete attachment that was found in the kernel (a damaged log, or a node that is converted).
    ///
    /// # Errors
    /// The attachment is known already, an address of it belongs to another one, or the record cannot be written.
    pub fn adopt(&mut self, reservation: Reservation) -> Result<(), NetworkError> {
        if self.get(&reservation.attachment).is_some() {
            return Err(NetworkError::Exists {
                attachment: reservation.attachment,
                what: "it is in the store".to_owned(),
            });
        }
        if let Some(address) = reservation.addresses.iter().find(|a| self.store.state.owner(**a).is_some()) {
            return Err(NetworkError::Address { address: *address, reason: "another attachment has it" });
        }
        self.store.write(Change::Adopted { reservation })
    }

    /// One attachment.
    #[must_use]
    pub fn get(&self, attachment: &AttachmentId) -> Option<&Entry> {
        self.store.state.entry(attachment)
    }

    /// All attachments, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.store.state.entries()
    }

    /// The attachment that holds an address.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&AttachmentId> {
        self.store.state.owner(address)
    }

    /// The pod CIDRs as published.
    #[must_use]
    pub fn ranges(&self) -> &[PodRange] {
        self.store.state.ranges()
    }

    /// The pod CIDRs to be routed and blackholed: the published ones and former ones that still hold a pod.
    #[must_use]
    pub fn routed_cidrs(&self) -> Vec<Cidr> {
        self.store.state.routed_cidrs()
    }

    /// Freed addresses whose conntrack entries are still to be removed.
    #[must_use]
    pub fn unflushed(&self) -> Vec<IpAddr> {
        self.store.state.unflushed()
    }

    /// Intents whose writer is dead, in order of attachment. The opener rolls them back (networking 3.1).
    #[must_use]
    pub fn orphans(&self) -> Vec<Reservation> {
        let dead = |e: &&Entry| e.phase.writer().is_some_and(|w| w != self.store.writer && !w.is_alive());
        let mut orphans: Vec<_> = self.entries().filter(dead).map(|e| e.reservation.clone()).collect();
        orphans.sort_by(|a, b| a.attachment.cmp(&b.attachment));
        orphans
    }

    fn choose(&self) -> Result<Vec<IpAddr>, NetworkError> {
        let ranges = self.ranges();
        if ranges.is_empty() {
            return Err(NetworkError::NoRange);
        }
        let now = (self.store.clock)();
        ranges.iter().map(|range| self.store.state.choose(range, now)).collect()
    }

    fn check(&self, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, NetworkError> {
        let refuse = |address: IpAddr, reason| Err(NetworkError::Address { address, reason });
        for (index, address) in addresses.iter().enumerate() {
            if addresses[..index].iter().any(|a| Family::of(*a) == Family::of(*address)) {
                return refuse(*address, "a pod has at most one address per family");
            }
            if self.store.state.owner(*address).is_some() {
                return refuse(*address, "another attachment has it");
            }
            if self.store.state.unflushed().contains(address) {
                return refuse(*address, "conntrack entries of its last owner are left");
            }
        }
        Ok(addresses.to_vec())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        unlock(&self.store.lock);
    }
}

fn locked(lock: &File, directory: &Path) -> Result<(), NetworkError> {
    loop {
        match flock(lock, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed("lock", &directory.join("lock"), error.into())),
        }
    }
}

fn unlock(lock: &File) {
    // Unlocking an open descriptor fails only for a bad descriptor; closing would unlock as well.
    let _ = flock(lock, FlockOperation::Unlock);
}
