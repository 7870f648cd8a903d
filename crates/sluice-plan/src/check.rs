//! The invariants of a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrSet, Family};
use sluice_model::PodKey;

use crate::host::StageLegs;
use crate::plan::{ClassId, FunctionId, Ground, Leg, LegId, Plan};

/// A way in which a plan contradicts itself. None is ever caused by a user's objects: each is a defect of the program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the fields are what the message names
pub enum Violation {
    #[error("ranges are out of order or overlap at {0}")]
    RangesOverlap(IpAddr),
    #[error("no class for {0}")]
    NoClass(String),
    #[error("{0} is not on the ground that is defined for it")]
    WrongGround(ClassId),
    #[error("{0} is defined and has no address")]
    EmptyClass(ClassId),
    #[error("{0} has an address and is not defined")]
    UndefinedClass(ClassId),
    #[error("{leg} has an exception for {class}, which is not defined")]
    ExceptionOfNoClass { leg: LegId, class: ClassId },
    #[error("{leg} has an exception for {class} that is none")]
    NoException { leg: LegId, class: ClassId },
    #[error("{function} is used by {leg} and not defined")]
    UndefinedFunction { function: FunctionId, leg: LegId },
    #[error("{0} is defined and not used")]
    UnusedFunction(FunctionId),
    #[error("{0} and {1} are equal")]
    EqualFunctions(FunctionId, FunctionId),
    #[error("{0} has a row that can never decide: {1}")]
    DeadRow(FunctionId, usize),
    #[error("{endpoint} has {leg}, which is not defined")]
    UndefinedLeg { endpoint: PodKey, leg: LegId },
    #[error("{0} is defined and not used")]
    UnusedLeg(LegId),
    #[error("host endpoint {endpoint} has {leg}, which is not defined")]
    UndefinedHostLeg { endpoint: Arc<str>, leg: LegId },
    #[error("host endpoint {endpoint} has an exception for {class} that is none, or not defined")]
    NoHostException { endpoint: Arc<str>, class: ClassId },
    #[error("{endpoint} has {address}, which is no pod address of the plan")]
    UnknownAddress { endpoint: PodKey, address: IpAddr },
}

impl Plan {
    /// Checks every invariant; all violations, in a stable order.
    pub fn check(&self) -> Result<(), Vec<Violation>> {
        let mut found = Vec::new();
        self.check_classes(&mut found);
        self.check_legs(&mut found);
        self.check_functions(&mut found);
        self.check_endpoints(&mut found);
        self.check_host_endpoints(&mut found);
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    fn check_classes(&self, found: &mut Vec<Violation>) {
        let mut before: Option<IpAddr> = None;
        for (first, span) in &self.ranges {
            let mixed = Family::of(*first) != Family::of(span.last) || span.last < *first;
            if mixed || before.is_some_and(|last| last >= *first) {
                found.push(Violation::RangesOverlap(*first));
            }
            before = Some(span.last);
        }
        let covered: AddrSet = self.spans().map(|(range, _)| range).collect();
        if !covered.is_all() {
            found.push(Violation::NoClass(covered.complement().to_string()));
        }
        let ranges = self.ranges.iter().map(|(first, span)| (span.class, Family::of(*first), false));
        let hosts = self.hosts.iter().map(|(address, class)| (*class, Family::of(*address), true));
        let mut used: BTreeMap<ClassId, BTreeSet<Ground>> = BTreeMap::new();
        for (class, family, pod) in ranges.chain(hosts) {
            used.entry(class).or_default().insert(Ground { family, pod });
        }
        for (class, grounds) in &used {
            match self.classes.get(class) {
                None => found.push(Violation::UndefinedClass(*class)),
                Some(ground) if grounds.iter().any(|other| other != ground) => {
                    found.push(Violation::WrongGround(*class));
                }
                Some(_) => {}
            }
        }
        let empty = self.classes.keys().filter(|class| !used.contains_key(class));
        found.extend(empty.map(|class| Violation::EmptyClass(*class)));
    }

    fn check_legs(&self, found: &mut Vec<Violation>) {
        for (id, leg) in &self.legs {
            for (class, function) in &leg.exceptions {
                match self.classes.get(class) {
                    None => found.push(Violation::ExceptionOfNoClass { leg: *id, class: *class }),
                    Some(ground) if leg.base[ground.index()] == *function => {
                        found.push(Violation::NoException { leg: *id, class: *class });
                    }
                    Some(_) => {}
                }
            }
            let undefined: BTreeSet<FunctionId> =
                leg.functions().filter(|id| !self.functions.contains_key(id)).collect();
            found.extend(
                undefined.into_iter().map(|function| Violation::UndefinedFunction { function, leg: *id }),
            );
        }
        let of_pods = self.subjects().into_iter().flat_map(|subject| [subject.ingress, subject.egress]);
        let of_hosts = self.host_endpoints.values().flat_map(|endpoint| endpoint.legs());
        let used: BTreeSet<LegId> = of_pods.chain(of_hosts).collect();
        found.extend(self.legs.keys().filter(|id| !used.contains(id)).map(|id| Violation::UnusedLeg(*id)));
    }

    fn check_functions(&self, found: &mut Vec<Violation>) {
        let used: BTreeSet<FunctionId> = self.legs.values().flat_map(Leg::functions).collect();
        found.extend(
            self.functions.keys().filter(|id| !used.contains(id)).map(|id| Violation::UnusedFunction(*id)),
        );
        let mut seen = BTreeMap::new();
        for (id, function) in &self.functions {
            if let Some(first) = seen.insert(function, *id) {
                found.push(Violation::EqualFunctions(first, *id));
            }
            // The cheap part of "no row is unreachable"; the engine's tests check the rest by packets.
            let dead = function.rows.iter().enumerate().find(|(index, row)| {
                function.rows[..*index].iter().any(|earlier| earlier.transport.covers(&row.transport))
            });
            found.extend(dead.map(|(index, _)| Violation::DeadRow(*id, index)));
        }
    }

    fn check_endpoints(&self, found: &mut Vec<Violation>) {
        for (key, endpoint) in &self.endpoints {
            for (address, subject) in &endpoint.addresses {
                let legs = BTreeSet::from([subject.ingress, subject.egress]);
                for leg in legs.into_iter().filter(|leg| !self.legs.contains_key(leg)) {
                    found.push(Violation::UndefinedLeg { endpoint: key.clone(), leg });
                }
                if !self.hosts.contains_key(address) {
                    found.push(Violation::UnknownAddress { endpoint: key.clone(), address: *address });
                }
            }
        }
    }

    fn check_host_endpoints(&self, found: &mut Vec<Violation>) {
        for (name, endpoint) in &self.host_endpoints {
            let legs: BTreeSet<LegId> = endpoint.legs().collect();
            for leg in legs.into_iter().filter(|leg| !self.legs.contains_key(leg)) {
                found.push(Violation::UndefinedHostLeg { endpoint: name.clone(), leg });
            }
            for (_, legs) in endpoint.ingress.all().chain(endpoint.egress.all()) {
                let StageLegs { base, exceptions } = legs;
                for (class, leg) in exceptions {
                    let ground = self.classes.get(class);
                    if ground.is_none_or(|ground| base[ground.index()] == *leg) {
                        found.push(Violation::NoHostException { endpoint: name.clone(), class: *class });
                    }
                }
            }
        }
    }
}
