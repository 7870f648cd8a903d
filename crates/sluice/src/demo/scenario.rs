//! The reference scenario: objects, situations, claims and what is true of each.

use sluice_addr::Protocol;
use sluice_report::ClaimState;

/// The namespace and its two pods.
pub(crate) const PODS: &str = include_str!("../../../../examples/isolation/pods.yaml");
/// A client, a server, a DNS server behind a Service.
pub(crate) const SURROUNDINGS: &str = include_str!("../../../../examples/isolation/surroundings.yaml");
/// The claims.
pub(crate) const CLAIMS: &str = include_str!("../../../../examples/isolation/claims.yaml");

const POLICY_A: &str = include_str!("../../../../examples/isolation/full-isolation.yaml");
const POLICY_B: &str = include_str!("../../../../examples/isolation/deny-all.yaml");
const POLICY_B_ORDER: &str = include_str!("../../../../examples/isolation/deny-all-order.yaml");
const POLICY_C: &str = include_str!("../../../../examples/isolation/deny-all-explicit.yaml");

/// A situation: the policies that are in force.
pub(crate) struct Variant {
    /// As the table shows it.
    pub(crate) name: &'static str,
    /// The manifests of its policies.
    pub(crate) policies: &'static [&'static str],
}

/// Pods with the policy of situation "A".
pub(crate) const SAMPLE: &str = concat!(
    include_str!("../../../../examples/isolation/pods.yaml"),
    "\n---\n",
    include_str!("../../../../examples/isolation/full-isolation.yaml")
);

/// The five situations, in the order in which the demo goes through them.
pub(crate) const VARIANTS: [Variant; 5] = [
    Variant { name: "no policy", policies: &[] },
    Variant { name: "A", policies: &[POLICY_A] },
    Variant { name: "A + B", policies: &[POLICY_A, POLICY_B] },
    Variant { name: "A + B order 1", policies: &[POLICY_A, POLICY_B_ORDER] },
    Variant { name: "A + C", policies: &[POLICY_A, POLICY_C] },
];

/// What each claim is in each situation: H holds, F does not hold, v holds vacuously, - not asked.
/// It is what the run is measured by; no verdict is taken from it.
pub(crate) const EXPECTED: [(&str, [char; 5]); 8] = [
    ("1", ['F', 'H', 'H', 'H', 'H']),
    ("2a", ['H', 'H', 'H', 'H', 'F']),
    ("2b", ['F', 'F', 'F', 'F', 'v']),
    ("2c", ['H', 'F', 'F', 'F', 'F']),
    ("3", ['H', 'H', 'F', 'F', 'F']),
    ("4", ['F', 'H', 'H', 'H', 'H']),
    ("5", ['F', 'F', 'F', 'F', 'v']),
    ("6", ['-', '-', 'F', 'F', 'H']),
];

/// The expectation for a claim in a situation; `None` if it is not asked there.
pub(crate) fn expected(claim: &str, variant: usize) -> Option<ClaimState> {
    let (_, row) = EXPECTED.iter().find(|(id, _)| *id == claim)?;
    match row.get(variant)? {
        'H' => Some(ClaimState::Holds),
        'F' => Some(ClaimState::Fails),
        'v' => Some(ClaimState::Vacuous),
        _ => None,
    }
}

/// Claims about IPv6 beyond the cluster are declared and programmed only: the scenario's outside host is IPv4.
pub(crate) fn is_observed(claim: &str) -> bool {
    claim != "2c"
}

/// The transports that stand for all others where a claim does not list its own.
pub(crate) const CATALOGUE: [(Protocol, Option<u16>); 8] = [
    (Protocol::TCP, Some(22)),
    (Protocol::TCP, Some(80)),
    (Protocol::TCP, Some(443)),
    (Protocol::TCP, Some(8080)),
    (Protocol::TCP, Some(10250)),
    (Protocol::UDP, Some(53)),
    (Protocol::ICMP, None),
    (Protocol::SCTP, Some(80)),
];

/// Transports that are sent as packets: SCTP is left to the tables, because its sockets need a kernel module.
pub(crate) fn is_probed(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::ICMP | Protocol::ICMPV6)
}
