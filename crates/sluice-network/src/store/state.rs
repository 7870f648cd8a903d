//! What the records add up to, and the choice of addresses.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_addr::{Cidr, Family};

use super::record::{Change, HostPort, Phase, PodRange, Reservation};
use crate::NetworkError;
use crate::identity::AttachmentId;

/// How long a freed address rests before it is given out again (networking 3).
pub const COOLING: Duration = Duration::from_secs(30);

/// A reservation and where it is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What is held.
    pub reservation: Reservation,
    /// How far it is.
    #[serde(flatten)]
    pub phase: Phase,
}

/// A freed address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Freed {
    address: IpAddr,
    /// Milliseconds since boot.
    at: u64,
    /// Whether its conntrack entries are gone.
    flushed: bool,
}

/// The state as one record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    ranges: Vec<PodRange>,
    retired: Vec<Cidr>,
    entries: Vec<Entry>,
    freed: Vec<Freed>,
    last: Vec<IpAddr>,
}

/// The replayed log.
#[derive(Debug, Default)]
pub(super) struct State {
    ranges: Vec<PodRange>,
    /// Former pod CIDRs in which attachments are left.
    retired: Vec<Cidr>,
    entries: HashMap<AttachmentId, Entry>,
    owners: HashMap<IpAddr, AttachmentId>,
    ports: HashMap<(u8, u16), Vec<(HostPort, AttachmentId)>>,
    freed: HashMap<IpAddr, Freed>,
    /// The last address given out per family.
    last: BTreeMap<Family, IpAddr>,
}

impl State {
    pub(super) fn entry(&self, attachment: &AttachmentId) -> Option<&Entry> {
        self.entries.get(attachment)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn owner(&self, address: IpAddr) -> Option<&AttachmentId> {
        self.owners.get(&address)
    }

    pub(super) fn ranges(&self) -> &[PodRange] {
        &self.ranges
    }

    /// Current pod CIDRs, then former ones that still hold an address (networking 7, last row of the table).
    pub(super) fn routed_cidrs(&self) -> Vec<Cidr> {
        self.ranges.iter().map(|r| r.subnet).chain(self.retired.iter().copied()).collect()
    }

    /// Freed addresses with conntrack entries that may still exist.
    pub(super) fn unflushed(&self) -> Vec<IpAddr> {
        let mut addresses: Vec<_> = self.freed.values().filter(|f| !f.flushed).map(|f| f.address).collect();
        addresses.sort_unstable();
        addresses
    }

    pub(super) fn port_owner(&self, port: HostPort) -> Option<&AttachmentId> {
        let taken = self.ports.get(&(port.protocol, port.port))?;
        taken.iter().find(|(other, _)| other.overlaps(port)).map(|(_, owner)| owner)
    }

    /// Forgets everything but the round-robin position: the boot is over (networking 3.1).
    pub(super) fn apply_of_other_boot(&mut self, change: &Change) {
        match change {
            Change::Snapshot { state } => state.last.iter().for_each(|a| self.remember(*a)),
            Change::Intent { reservation, .. } => {
                reservation.addresses.iter().for_each(|a| self.remember(*a))
            }
            _ => {}
        }
    }

    pub(super) fn apply(&mut self, change: Change, at: u64) {
        match change {
            Change::Snapshot { state } => *self = Self::from(state),
            Change::Ranges { ranges } => {
                self.retired.extend(self.ranges.iter().map(|r| r.subnet));
                self.ranges = ranges;
                self.prune_retired();
            }
            Change::Intent { reservation, writer } => {
                reservation.addresses.iter().for_each(|a| self.remember(*a));
                self.hold(Entry { reservation, phase: Phase::Preparing { writer } });
            }
            Change::Adopted { reservation } => self.hold(Entry { reservation, phase: Phase::Committed }),
            Change::Commit { attachment } => self.set_phase(&attachment, Phase::Committed),
            Change::ReleaseIntent { attachment, writer } => {
                self.set_phase(&attachment, Phase::Releasing { writer });
            }
            Change::Released { attachment, flushed } => self.free(&attachment, at, flushed),
            Change::Flushed { addresses } => {
                for address in addresses {
                    if let Some(freed) = self.freed.get_mut(&address) {
                        freed.flushed = true;
                    }
                }
            }
        }
    }

    pub(super) fn snapshot(&self, now: Duration) -> Snapshot {
        let mut entries: Vec<_> = self.entries.values().cloned().collect();
        entries.sort_by(|a, b| a.reservation.attachment.cmp(&b.reservation.attachment));
        let mut freed: Vec<_> = self.freed.values().filter(|f| !f.is_rested(now)).copied().collect();
        freed.sort_by_key(|f| f.address);
        Snapshot {
            ranges: self.ranges.clone(),
            retired: self.retired.clone(),
            entries,
            freed,
            last: self.last.values().copied().collect(),
        }
    }

    /// The next address of a range as host-local chooses it: behind the last one given out, round and round, and
    /// never the network address, the gateway or the IPv4 broadcast address. A rested address is preferred; else
    /// the one that was freed first, provided that its conntrack entries are gone, which is never waived.
    pub(super) fn choose(&self, range: &PodRange, now: Duration) -> Result<IpAddr, NetworkError> {
        let pool = Pool::new(range);
        // Every probe that fails meets a held, resting or excluded address, so this bound finds a free one if
        // there is one, however large the range is.
        let probes = (self.owners.len() + self.freed.len()) as u128 + 4;
        let after = self.last.get(&range.subnet.family()).copied();
        let free = pool.after(after).take(usize::try_from(probes).unwrap_or(usize::MAX)).find(|address| {
            !self.owners.contains_key(address)
                && self.freed.get(address).is_none_or(|freed| freed.is_rested(now))
        });
        let resting = || self.freed.values().filter(|f| pool.allows(f.address));
        free.or_else(|| {
            resting()
                .filter(|f| f.flushed && !self.owners.contains_key(&f.address))
                .min_by_key(|f| (f.at, f.address))
                .map(|f| f.address)
        })
        .ok_or_else(|| NetworkError::NoAddress {
            family: range.subnet.family(),
            range: range.subnet,
            used: self.owners.keys().filter(|a| range.subnet.contains(**a)).count(),
            cooling: resting().count(),
        })
    }

    fn remember(&mut self, address: IpAddr) {
        self.last.insert(Family::of(address), address);
    }

    fn hold(&mut self, entry: Entry) {
        let attachment = &entry.reservation.attachment;
        for address in &entry.reservation.addresses {
            self.freed.remove(address);
            self.owners.insert(*address, attachment.clone());
        }
        for port in &entry.reservation.host_ports {
            self.ports.entry((port.protocol, port.port)).or_default().push((*port, attachment.clone()));
        }
        self.entries.insert(attachment.clone(), entry);
    }

    fn set_phase(&mut self, attachment: &AttachmentId, phase: Phase) {
        if let Some(entry) = self.entries.get_mut(attachment) {
            entry.phase = phase;
        }
    }

    fn free(&mut self, attachment: &AttachmentId, at: u64, flushed: bool) {
        let Some(entry) = self.entries.remove(attachment) else { return };
        for address in entry.reservation.addresses {
            self.owners.remove(&address);
            self.freed.insert(address, Freed { address, at, flushed });
        }
        for port in entry.reservation.host_ports {
            if let Some(owners) = self.ports.get_mut(&(port.protocol, port.port)) {
                owners.retain(|(_, owner)| owner != attachment);
            }
        }
        self.prune_retired();
    }

    fn prune_retired(&mut self) {
        let (ranges, owners) = (&self.ranges, &self.owners);
        self.retired.retain(|old| {
            !ranges.iter().any(|r| r.subnet == *old) && owners.keys().any(|address| old.contains(*address))
        });
        self.retired.sort_unstable();
        self.retired.dedup();
    }
}

impl From<Snapshot> for State {
    fn from(snapshot: Snapshot) -> Self {
        let mut state = Self { ranges: snapshot.ranges, retired: snapshot.retired, ..Self::default() };
        snapshot.entries.into_iter().for_each(|entry| state.hold(entry));
        state.freed.extend(snapshot.freed.into_iter().map(|f| (f.address, f)));
        snapshot.last.into_iter().for_each(|address| state.remember(address));
        state
    }
}

impl Freed {
    fn is_rested(&self, now: Duration) -> bool {
        self.flushed && now.saturating_sub(Duration::from_millis(self.at)) >= COOLING
    }
}

/// The addresses of a range that may be given out, as offsets from its first address.
struct Pool {
    subnet: Cidr,
    gateway: IpAddr,
    /// Offset of the last address that may be given out; the first is 1.
    last: u128,
}

impl Pool {
    fn new(range: &PodRange) -> Self {
        let subnet = range.subnet;
        let size = number(subnet.last()) - number(subnet.first());
        let broadcast = u128::from(subnet.family() == Family::V4);
        let gateway = range.gateway.unwrap_or_else(|| at(subnet, 1));
        Self { subnet, gateway, last: size.saturating_sub(broadcast) }
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.subnet.contains(address) && address != self.gateway && {
            let offset = number(address) - number(self.subnet.first());
            (1..=self.last).contains(&offset)
        }
    }

    /// Every address once, starting behind `last`.
    fn after(&self, last: Option<IpAddr>) -> impl Iterator<Item = IpAddr> + '_ {
        let from = last
            .filter(|address| self.subnet.contains(*address))
            .map_or(0, |address| number(address) - number(self.subnet.first()));
        let count = self.last;
        (0..count)
            .map(move |step| {
                let before_wrap = count.saturating_sub(from);
                let offset = if step >= before_wrap { step - before_wrap } else { from + step };
                at(self.subnet, offset + 1)
            })
            .filter(|address| self.allows(*address))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn at(subnet: Cidr, offset: u128) -> IpAddr {
    match subnet.first() {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits().wrapping_add(offset as u32))),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits().wrapping_add(offset))),
    }
}
