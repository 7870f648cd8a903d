//! Port functions: what a leg does with a connection once the peer's class is known.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_addr::{PortSet, Protocol, Transport};
use sluice_model::{RuleRef, Verdict};

/// Why a verdict was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// This rule decided.
    Rule(RuleRef),
    /// No rule of the tier decided and its default action is Deny (semantics 1.2).
    TierDefault(Arc<str>),
    /// No tier decided: the profile of the pod or of the host endpoint (semantics 3.7).
    Profile(Arc<str>),
    /// Normal stage of a host endpoint: no tier decided, and none of its profiles allows (semantics 3.10).
    NoProfile,
    /// Other stages of a host endpoint: no tier decided, so that the connection goes on to the next stage. Always with
    /// [`Verdict::Allow`].
    NextStage,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Rule(rule) => rule.fmt(f),
            Cause::TierDefault(tier) => write!(f, "default of tier {tier}"),
            Cause::Profile(name) => write!(f, "profile {name}"),
            Cause::NoProfile => f.write_str("no profile"),
            Cause::NextStage => f.write_str("next stage"),
        }
    }
}

/// A verdict with its cause.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// Its cause.
    pub cause: Cause,
}

/// An ordered list of rows; the first that matches decides.
///
/// It holds for connections of one family (a class has one), so that no row names a family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortFunction {
    /// The rows in order. None can never be reached: what earlier rows cover entirely is left out.
    pub rows: Vec<Row>,
    /// What happens where no row matches.
    pub otherwise: Outcome,
    /// The Log rules that connections meet before anything is decided about them (semantics 3.5), in the order of
    /// evaluation. They decide nothing, so that whoever asks for verdicts does not look at them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<LogRow>,
}

/// Connections that meet a Log rule. The rows of one rule share no connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogRow {
    /// Their transports,
    pub transport: TransportMatch,
    /// but for those of these protocols, in order; only where the transport is [`TransportMatch::Any`].
    pub except: Vec<Protocol>,
    /// The rule.
    pub rule: RuleRef,
}

impl LogRow {
    /// Does a connection with protocol number `protocol` meet the rule?
    pub fn contains(&self, protocol: Protocol, transport: &Transport) -> bool {
        !self.except.contains(&protocol) && self.transport.contains(protocol, transport)
    }
}

/// One row: a box of transports and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Row {
    /// The transports.
    pub transport: TransportMatch,
    /// The outcome.
    pub outcome: Outcome,
}

/// A box in the space of transports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TransportMatch {
    /// Every protocol.
    Any,
    /// Every packet of one protocol.
    Protocol(Protocol),
    /// Every packet of every protocol but one (`notProtocol`).
    NotProtocol(Protocol),
    /// A protocol with ports, its source port and its destination port in these sets.
    Ports {
        /// TCP, UDP, UDPLite or SCTP.
        protocol: Protocol,
        /// Source ports; never empty.
        sources: PortSet,
        /// Destination ports; never empty.
        destinations: PortSet,
    },
    /// ICMP or ICMPv6 with type and code in these inclusive ranges.
    Icmp {
        /// ICMP or ICMPv6.
        protocol: Protocol,
        /// First and last type.
        types: (u8, u8),
        /// First and last code.
        codes: (u8, u8),
    },
}

impl TransportMatch {
    /// Is `transport` of a connection with protocol number `protocol` in the box?
    pub fn contains(&self, protocol: Protocol, transport: &Transport) -> bool {
        match self {
            TransportMatch::Any => true,
            TransportMatch::Protocol(p) => *p == protocol,
            TransportMatch::NotProtocol(p) => *p != protocol,
            TransportMatch::Ports { protocol: p, sources, destinations } => match transport {
                Transport::Ports { source, destination, .. } => {
                    *p == protocol && sources.contains(*source) && destinations.contains(*destination)
                }
                Transport::Icmp { .. } | Transport::Other(_) => false,
            },
            TransportMatch::Icmp { protocol: p, types, codes } => match transport {
                Transport::Icmp { type_, code } => {
                    *p == protocol
                        && (types.0..=types.1).contains(type_)
                        && (codes.0..=codes.1).contains(code)
                }
                Transport::Ports { .. } | Transport::Other(_) => false,
            },
        }
    }
}

impl TransportMatch {
    /// Does the box hold all of `other`? Exact for two boxes; a union of boxes may cover more.
    pub fn covers(&self, other: &TransportMatch) -> bool {
        use TransportMatch::*;
        match (self, other) {
            (Any, _) => true,
            (Protocol(p), Protocol(q) | Ports { protocol: q, .. } | Icmp { protocol: q, .. }) => p == q,
            (NotProtocol(p), Protocol(q) | Ports { protocol: q, .. } | Icmp { protocol: q, .. }) => p != q,
            (NotProtocol(p), NotProtocol(q)) => p == q,
            (
                Ports { protocol: p, sources: s, destinations: d },
                Ports { protocol: q, sources: t, destinations: e },
            ) => p == q && t.subtract(s).is_empty() && e.subtract(d).is_empty(),
            (Icmp { protocol: p, types: t, codes: c }, Icmp { protocol: q, types: u, codes: d }) => {
                p == q && t.0 <= u.0 && u.1 <= t.1 && c.0 <= d.0 && d.1 <= c.1
            }
            (Protocol(_) | NotProtocol(_) | Ports { .. } | Icmp { .. }, _) => false,
        }
    }
}

impl PortFunction {
    /// The Log rules that one connection meets, in order.
    pub fn logged(&self, protocol: Protocol, transport: &Transport) -> impl Iterator<Item = &RuleRef> {
        self.logs.iter().filter(move |row| row.contains(protocol, transport)).map(|row| &row.rule)
    }

    /// The outcome for one connection, and the row that decided (`None`: no row, [`PortFunction::otherwise`]).
    pub fn decide(&self, protocol: Protocol, transport: &Transport) -> (&Outcome, Option<usize>) {
        match self.rows.iter().position(|row| row.transport.contains(protocol, transport)) {
            Some(index) => (&self.rows[index].outcome, Some(index)),
            None => (&self.otherwise, None),
        }
    }
}
