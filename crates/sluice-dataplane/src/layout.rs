//! Names and numbers that are fixed in the kernel (docs/kernel.md lists them; nothing later moves them).

/// The table, family inet.
pub const TABLE: &str = "sluice";
/// Host ends of pods begin so (networking 2).
pub const POD_PREFIX: &str = "slu";

/// Base chain at prerouting −300: source check and tunnel guard.
pub const GUARD: &str = "guard";
/// Base chain at forward 0: policy.
pub const FORWARD: &str = "forward";
/// Base chain at input 0: policy of pods towards their own node.
pub const INPUT: &str = "input";
/// Base chain at output 0: no late TCP segment of the node revives a flow that was cut.
pub const OUTPUT: &str = "output";
/// Regular chain: may a pod's interface use this source address?
pub const SOURCE: &str = "source";
/// Regular chain: ICMPv6 that a pod sends, with neighbour discovery.
pub const DISCOVERY: &str = "discovery";
/// Regular chain: what every packet from or to a pod must be, before policy.
pub const SANE: &str = "sane";
/// Regular chain: dispatch to the egress leg of the source.
pub const FROM_POD: &str = "from-pod";
/// Regular chain: dispatch to the ingress leg of the destination.
pub const TO_POD: &str = "to-pod";
/// Regular chain: from a pod to its own node.
pub const TO_NODE: &str = "to-node";

/// Base chains that stand only on a node with host endpoints (semantics 3.10): before connection tracking.
pub const HOST_FIRST_IN: &str = "host-first-in";
/// As [`HOST_FIRST_IN`], for what the node itself sends.
pub const HOST_FIRST_OUT: &str = "host-first-out";
/// Base chain: before the destination is translated.
pub const HOST_EARLY: &str = "host-early";
/// Base chain: what comes to the node itself.
pub const HOST_INPUT: &str = "host-input";
/// Base chain: what the node itself sends.
pub const HOST_OUTPUT: &str = "host-output";
/// Base chain: what the node itself sends and translates, since only here is it known by which interface it leaves.
pub const HOST_LEAVING: &str = "host-leaving";
/// Hash sets `protocol . port`: failsafes for any peer, by direction.
pub const FAILSAFES: [&str; 2] = ["failsafe-in", "failsafe-out"];
/// Hash sets of addresses of the cluster's nodes, per family: tunnels between them pass host endpoints.
pub const TUNNEL_ENDS: [&str; 2] = ["tunnel-end4", "tunnel-end6"];
/// Hash set of UDP ports of tunnels between nodes.
pub const TUNNEL_PORTS: &str = "tunnel-ports";

/// Packet mark: an early stage of the interface allowed the packet, so that the interface's later stage is skipped.
pub const EARLY_ALLOWED: u32 = 0x1_0000;
/// Packet mark: the node sent the packet and translated its destination; the normal stage follows at postrouting.
pub const TRANSLATED_HERE: u32 = 0x2_0000;

/// The log group (nfnetlink_log) of records of connections that met Log rules.
pub const LOG_GROUP: u16 = 0x51ce;

/// Hash sets `ifname . address`: the addresses that a pod interface owns, per family.
pub const OWN: [&str; 2] = ["own4", "own6"];
/// Verdict maps `source address → egress leg`, per family.
pub const EGRESS: [&str; 2] = ["egress4", "egress6"];
/// Verdict maps `destination address → ingress leg`, per family.
pub const INGRESS: [&str; 2] = ["ingress4", "ingress6"];
/// Hash sets of underlay addresses of nodes, per family: who may send tunnel packets, whom pods may not.
pub const NODES: [&str; 2] = ["node4", "node6"];

/// Priority of [`GUARD`], [`HOST_FIRST_IN`] and [`HOST_FIRST_OUT`]: before conntrack (−200); and of [`HOST_LEAVING`]: before
/// anybody else at postrouting.
pub const GUARD_PRIORITY: i32 = -300;
/// Priority of all other base chains: after DNAT, before SNAT.
pub const FILTER_PRIORITY: i32 = 0;
/// Priority of [`HOST_EARLY`]: after conntrack (−200), before DNAT (−100).
pub const EARLY_PRIORITY: i32 = -150;

/// ICMP types that report an error about another packet (semantics 1.7).
pub const ICMP_ERRORS: [u8; 3] = [3, 11, 12];
/// First and last ICMPv6 error type (semantics 1.7).
pub const ICMPV6_ERRORS: (u8, u8) = (1, 4);
/// Neighbour discovery that a pod may send (semantics 1.7): solicitation of routers and neighbours, advertisement.
pub const ND_FROM_POD: [u8; 3] = [133, 135, 136];
/// Multicast listener messages (semantics 1.7).
pub const MLD: [u8; 4] = [130, 131, 132, 143];
/// IPIP, which could carry any inner source (semantics 1.7).
pub const IPIP: u8 = 4;
