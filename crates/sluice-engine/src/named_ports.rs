//! Port names: which numbers they stand for on each entity (semantics 1.8).

use sluice_addr::{PortSet, Protocol};
use sluice_model::NamedPort;

use crate::criterion::{Criteria, Criterion, PortMap};
use crate::facts::{Fact, PortMaps};
use crate::ids::{QueryId, Sym};
use crate::symbols::Symbols;

/// Named ports, sorted, each once.
pub(crate) type NamedPortList = Box<[(Sym, Protocol, u16)]>;

pub(crate) fn take_ports(ports: &[NamedPort], symbols: &mut Symbols) -> NamedPortList {
    if ports.is_empty() {
        return NamedPortList::default();
    }
    let mut list: Vec<(Sym, Protocol, u16)> =
        ports.iter().map(|port| (symbols.take(&port.name), port.protocol, port.port)).collect();
    list.sort_unstable();
    list.dedup_by(|later, kept| {
        let same = later == kept;
        if same {
            symbols.release(later.0);
        }
        same
    });
    list.into()
}

/// What an entity with these ports answers to criteria about port names. Facts may be named twice.
pub(crate) fn ports_of(
    ports: &[(Sym, Protocol, u16)],
    criteria: &Criteria,
    satisfies: impl Fn(QueryId) -> bool,
    maps: &mut PortMaps,
    facts: &mut Vec<Fact>,
) {
    for (name, protocol, port) in ports {
        for id in criteria.by_port.get(name).into_iter().flatten() {
            let Criterion::NamedPorts { holder, .. } = &criteria.of(*id).criterion else { continue };
            if holder.is_none_or(&satisfies) {
                let map = PortMap::from([(*protocol, PortSet::from(*port))]);
                facts.push((*id, maps.take(map)));
            }
        }
    }
}
