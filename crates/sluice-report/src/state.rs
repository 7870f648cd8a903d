//! The state of an object: what of it is in force, whether that changes anything, and why (semantics 7.1).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Severity};

/// The state of a policy object, from harmless to grave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// In force, without findings or with warnings.
    Programmed,
    /// In force, but all that it decides would be decided alike without it.
    NoEffect,
    /// In force, but every connection that it matches is decided before it.
    Shadowed,
    /// In force, but no endpoint is its subject now.
    SelectsNothing,
    /// Valid API, but a part cannot be enforced here; that part fails closed, the rest is in force.
    Unsupported,
    /// A part or the whole object is invalid; it fails closed, a valid rest is in force.
    Rejected,
    /// Valid, but the kernel refused it; fails closed for the endpoints it selects.
    Quarantined,
    /// Present, but of a kind that this version does not evaluate: verdicts that it could touch are undecided.
    NotEvaluated,
}

impl State {
    /// Every state, in order.
    pub const ALL: [State; 8] = [
        State::Programmed,
        State::NoEffect,
        State::Shadowed,
        State::SelectsNothing,
        State::Unsupported,
        State::Rejected,
        State::Quarantined,
        State::NotEvaluated,
    ];
}

/// How much of an object is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum InForce {
    /// All of it.
    Whole,
    /// A part of it; what is not fails closed.
    Part,
    /// Nothing.
    Nothing,
}

/// Nodes that have an object in their kernel, of those that should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nodes {
    /// How many have it.
    pub on: usize,
    /// How many should.
    pub of: usize,
}

/// The state of one object with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStatus {
    /// The gravest state that a finding puts it in.
    pub state: State,
    /// How much of it is in force.
    pub in_force: InForce,
    /// Where, if nodes report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Nodes>,
    /// The finding that decides the state: code, field path, position, sentence and hint. `None` if nothing is to be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Finding>,
    /// The other findings, gravest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<Finding>,
}

impl ObjectStatus {
    /// The status that `findings` about one object make. `has_effect` is false where the model reads nothing of it (7.3).
    pub fn of(findings: impl IntoIterator<Item = Finding>, has_effect: bool, nodes: Option<Nodes>) -> Self {
        let mut findings: Vec<Finding> = findings.into_iter().collect();
        // stable: among equals the first in the object's own order is the reason
        findings.sort_by_key(|found| std::cmp::Reverse((found.state(), found.code.severity())));
        let mut findings = findings.into_iter();
        let reason = findings.next();
        let state = reason.as_ref().map_or(State::Programmed, Finding::state);
        let in_force = match state {
            _ if !has_effect => InForce::Nothing,
            State::Quarantined | State::NotEvaluated => InForce::Nothing,
            State::Unsupported | State::Rejected => InForce::Part,
            State::Programmed | State::NoEffect | State::Shadowed | State::SelectsNothing => InForce::Whole,
        };
        ObjectStatus { state, in_force, nodes, reason, more: findings.collect() }
    }
}

impl fmt::Display for ObjectStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.state, self.in_force) {
            (State::NotEvaluated, _) => return f.write_str("Not evaluated"),
            (_, InForce::Nothing) => return f.write_str("Accepted, not enforced"),
            (State::NoEffect, _) => return f.write_str("No effect"),
            (State::Shadowed, _) => return f.write_str("Shadowed"),
            (State::SelectsNothing, _) => return f.write_str("Selects nothing"),
            (State::Programmed | State::Unsupported | State::Rejected | State::Quarantined, _) => {}
        }
        match self.nodes {
            Some(Nodes { on, of }) if on < of => write!(f, "Programming {on}/{of}")?,
            Some(Nodes { on, of }) => write!(f, "Enforced {on}/{of}")?,
            None => f.write_str("Enforced")?,
        }
        match &self.reason {
            Some(reason) if self.in_force == InForce::Part => write!(f, ", not {}", reason.path),
            _ => Ok(()),
        }
    }
}

impl Finding {
    /// The state that this finding puts its object in. What is shadowed or without effect in a part of the object is a
    /// warning about that part, not the object's state.
    pub fn state(&self) -> State {
        let whole = matches!(&*self.path, "" | "spec");
        match self.code.state() {
            State::NoEffect | State::Shadowed | State::SelectsNothing if !whole => State::Programmed,
            state => state,
        }
    }

    /// Whether a part or the whole of the object is not in force.
    pub fn is_error(&self) -> bool {
        self.code.severity() == Severity::Error
    }
}
