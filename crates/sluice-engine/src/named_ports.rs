//! Port names: which numbers they stand for on each entity (semantics 1.8).

use sluice_addr::{PortSet, Protocol};
use sluice_model::NamedPort;
use smallvec::SmallVec;

use crate::criterion::{Criteria, Criterion, PortMap};
use crate::facts::{Fact, PortMaps};
use crate::ids::{QueryId, Sym};
use crate::symbols::Symbols;

/// Named ports in the order of their texts, each once.
pub(crate) type NamedPortList = Box<[(Sym, Protocol, u16)]>;

/// [`NamedPortList`] before its names have numbers.
pub(crate) type PortTexts<'a> = SmallVec<[(&'a str, Protocol, u16); 4]>;

/// Named ports in order, each once.
pub(crate) fn port_texts(ports: &[NamedPort]) -> PortTexts<'_> {
    let mut list: PortTexts<'_> = ports.iter().map(|port| (&*port.name, port.protocol, port.port)).collect();
    list.sort_unstable();
    list.dedup();
    list
}

pub(crate) fn take_ports(ports: &[(&str, Protocol, u16)], symbols: &mut Symbols) -> NamedPortList {
    ports.iter().map(|(name, protocol, port)| (symbols.take(name), *protocol, *port)).collect()
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
