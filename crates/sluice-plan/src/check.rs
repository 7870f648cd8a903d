//! The invariants of a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sluice_addr::{AddrSet, Family};
use sluice_model::{Direction, PodKey};

use crate::plan::{ClassId, FunctionId, Plan, SubjectId};

/// A way in which a plan contradicts itself. None is ever caused by a user's objects: each is a defect of the program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the fields are what the message names
pub enum Violation {
    #[error("ranges are out of order or overlap at {0}")]
    RangesOverlap(IpAddr),
    #[error("no class for {0}")]
    NoClass(String),
    #[error("{0} has addresses of both families")]
    MixedClass(ClassId),
    #[error("{subject} {direction} has no function for {class}")]
    LegNotTotal { subject: SubjectId, direction: Direction, class: ClassId },
    #[error("{subject} {direction} has a function for {class}, which has no address")]
    EmptyClass { subject: SubjectId, direction: Direction, class: ClassId },
    #[error("{function} is used by {subject} and not defined")]
    UndefinedFunction { function: FunctionId, subject: SubjectId },
    #[error("{0} is defined and not used")]
    UnusedFunction(FunctionId),
    #[error("{0} and {1} are equal")]
    EqualFunctions(FunctionId, FunctionId),
    #[error("{0} has a row that can never decide: {1}")]
    DeadRow(FunctionId, usize),
    #[error("{endpoint} has {subject}, which is not defined")]
    UndefinedSubject { endpoint: PodKey, subject: SubjectId },
    #[error("{0} is defined and not used")]
    UnusedSubject(SubjectId),
    #[error("{endpoint} has {address}, which is no pod address of the plan")]
    UnknownAddress { endpoint: PodKey, address: IpAddr },
}

impl Plan {
    /// Checks every invariant; all violations, in a stable order.
    pub fn check(&self) -> Result<(), Vec<Violation>> {
        let mut found = Vec::new();
        let classes = self.check_classes(&mut found);
        self.check_subjects(&classes, &mut found);
        self.check_functions(&mut found);
        self.check_endpoints(&mut found);
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    fn check_classes(&self, found: &mut Vec<Violation>) -> BTreeSet<ClassId> {
        for pair in self.ranges.windows(2) {
            if pair[0].0.last() >= pair[1].0.first() {
                found.push(Violation::RangesOverlap(pair[1].0.first()));
            }
        }
        let covered: AddrSet = self.ranges.iter().map(|(range, _)| *range).collect();
        if !covered.is_all() {
            found.push(Violation::NoClass(covered.complement().to_string()));
        }
        let ranges = self.ranges.iter().map(|(range, class)| (*class, range.family()));
        let hosts = self.hosts.iter().map(|(address, class)| (*class, Family::of(*address)));
        let mut families: BTreeMap<ClassId, BTreeSet<Family>> = BTreeMap::new();
        for (class, family) in ranges.chain(hosts) {
            families.entry(class).or_default().insert(family);
        }
        found.extend(
            families.iter().filter(|(_, f)| f.len() > 1).map(|(class, _)| Violation::MixedClass(*class)),
        );
        families.into_keys().collect()
    }

    fn check_subjects(&self, classes: &BTreeSet<ClassId>, found: &mut Vec<Violation>) {
        for (id, subject) in &self.subjects {
            for direction in Direction::BOTH {
                let leg = subject.leg(direction);
                found.extend(
                    classes
                        .iter()
                        .filter(|class| !leg.functions.contains_key(class))
                        .map(|class| Violation::LegNotTotal { subject: *id, direction, class: *class }),
                );
                found.extend(
                    leg.functions
                        .keys()
                        .filter(|class| !classes.contains(class))
                        .map(|class| Violation::EmptyClass { subject: *id, direction, class: *class }),
                );
                found.extend(
                    leg.functions
                        .values()
                        .filter(|f| !self.functions.contains_key(f))
                        .map(|function| Violation::UndefinedFunction { function: *function, subject: *id }),
                );
            }
        }
        let used: BTreeSet<SubjectId> =
            self.endpoints.values().flat_map(|e| e.addresses.iter().map(|(_, subject)| *subject)).collect();
        found.extend(
            self.subjects.keys().filter(|id| !used.contains(id)).map(|id| Violation::UnusedSubject(*id)),
        );
    }

    fn check_functions(&self, found: &mut Vec<Violation>) {
        let used: BTreeSet<FunctionId> = self
            .subjects
            .values()
            .flat_map(|s| s.ingress.functions.values().chain(s.egress.functions.values()))
            .copied()
            .collect();
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
                if !self.subjects.contains_key(subject) {
                    found.push(Violation::UndefinedSubject { endpoint: key.clone(), subject: *subject });
                }
                if !self.hosts.contains_key(address) {
                    found.push(Violation::UnknownAddress { endpoint: key.clone(), address: *address });
                }
            }
        }
    }
}
