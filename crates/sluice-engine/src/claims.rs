//! Who claims which address (semantics 1.9).

use std::hash::Hash;
use std::net::IpAddr;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::ids::{ClassIx, PodId};

/// An address that at least one live pod has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    first: PodId,
    /// `None` until its class is first computed.
    pub(crate) class: Option<ClassIx>,
}

/// All addresses of live pods. Families are apart because there are very many addresses of the shorter one.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    v4: FxHashMap<u32, Host>,
    v6: FxHashMap<u128, Host>,
    /// The claimants beside the first one, where there are any.
    more: FxHashMap<IpAddr, Vec<PodId>>,
    /// Classes of addresses that nobody has any more, to be given back.
    pub(crate) deserted: FxHashMap<IpAddr, Option<ClassIx>>,
}

/// Adds an address unless it is there; whether it was there.
fn add<K: Eq + Hash>(hosts: &mut FxHashMap<K, Host>, address: K, first: PodId) -> bool {
    let mut is_new = false;
    hosts.entry(address).or_insert_with(|| {
        is_new = true;
        Host { first, class: None }
    });
    !is_new
}

impl Claims {
    pub(crate) fn get(&self, address: IpAddr) -> Option<&Host> {
        match address {
            IpAddr::V4(ip) => self.v4.get(&ip.to_bits()),
            IpAddr::V6(ip) => self.v6.get(&ip.to_bits()),
        }
    }

    pub(crate) fn get_mut(&mut self, address: IpAddr) -> Option<&mut Host> {
        match address {
            IpAddr::V4(ip) => self.v4.get_mut(&ip.to_bits()),
            IpAddr::V6(ip) => self.v6.get_mut(&ip.to_bits()),
        }
    }

    fn remove(&mut self, address: IpAddr) -> Option<Host> {
        match address {
            IpAddr::V4(ip) => self.v4.remove(&ip.to_bits()),
            IpAddr::V6(ip) => self.v6.remove(&ip.to_bits()),
        }
    }

    fn others(&self, address: IpAddr) -> Option<&Vec<PodId>> {
        if self.more.is_empty() { None } else { self.more.get(&address) }
    }

    /// Everybody who claims an address.
    pub(crate) fn claimants(&self, address: IpAddr) -> SmallVec<[PodId; 2]> {
        let Some(host) = self.get(address) else { return SmallVec::new() };
        let mut all = SmallVec::from_slice(&[host.first]);
        if let Some(others) = self.others(address) {
            all.extend_from_slice(others);
        }
        all
    }

    /// Returns who else claims the address.
    pub(crate) fn claim(&mut self, address: IpAddr, pod: PodId) -> SmallVec<[PodId; 2]> {
        let was_there = match address {
            IpAddr::V4(ip) => add(&mut self.v4, ip.to_bits(), pod),
            IpAddr::V6(ip) => add(&mut self.v6, ip.to_bits(), pod),
        };
        if was_there {
            let others = self.claimants(address);
            self.more.entry(address).or_default().push(pod);
            return others;
        }
        if !self.deserted.is_empty()
            && let Some(class) = self.deserted.remove(&address)
            && let Some(host) = self.get_mut(address)
        {
            host.class = class;
        }
        SmallVec::new()
    }

    /// Returns who still claims the address.
    pub(crate) fn disclaim(&mut self, address: IpAddr, pod: PodId) -> SmallVec<[PodId; 2]> {
        if self.others(address).is_none() {
            if let Some(gone) = self.remove(address) {
                self.deserted.insert(address, gone.class);
            }
            return SmallVec::new();
        }
        let more = self.more.get_mut(&address).expect("it was there a moment ago");
        let successor = match more.iter().position(|other| *other == pod) {
            Some(at) => {
                more.remove(at);
                None
            }
            None => more.pop(),
        };
        if more.is_empty() {
            self.more.remove(&address);
        }
        if let (Some(successor), Some(host)) = (successor, self.get_mut(address)) {
            host.first = successor;
        }
        self.claimants(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Id;

    #[test]
    fn an_address_outlives_its_first_claimant() {
        for address in ["10.0.0.1", "fd00::1"].map(|text| text.parse::<IpAddr>().unwrap()) {
            let [a, b, c] = [0, 1, 2].map(PodId::from_index);
            let mut hosts = Claims::default();
            let class = ClassIx::from_index(7);
            assert_eq!(hosts.claim(address, a).as_slice(), []);
            hosts.get_mut(address).unwrap().class = Some(class);
            assert_eq!(hosts.claim(address, b).as_slice(), [a]);
            assert_eq!(hosts.claim(address, c).as_slice(), [a, b]);
            assert_eq!(hosts.disclaim(address, b).as_slice(), [a, c]);
            assert_eq!(hosts.disclaim(address, a).as_slice(), [c]);
            assert!(hosts.disclaim(address, c).is_empty() && hosts.get(address).is_none());
            // whoever takes it before the next flush takes over its class
            hosts.claim(address, b);
            assert_eq!((hosts.get(address).unwrap().class, hosts.deserted.len()), (Some(class), 0));
        }
    }
}
