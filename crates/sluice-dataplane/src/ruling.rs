//! A packet run through a table as the kernel holds it: the *programmed* truth.
//!
//! The table comes from read-back, never from memory, so that an element removed by hand changes the answer. The packet is the
//! first of its flow (conntrack state new; for TCP a SYN).

use std::net::IpAddr;

use sluice_addr::{Family, Flow, Transport};
use sluice_model::Bound;
use sluice_netlink::nft::{
    self, CmpOp, Expr, Field, HookPoint, MarkKind, MarkValue, Rule, Set, SetKey, SetValue, Table, Value,
    Verdict, ct_state, ct_status, tcp_flags,
};

use crate::layout::{MLD, OWN};

/// What the kernel does with a packet on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Does the packet pass?
    pub allowed: bool,
    /// The comments of the rules that gave a final verdict or returned, in order: the causes of both legs.
    pub causes: Vec<String>,
}

/// Where the ends of a flow are, seen from the node whose table is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A pod on this node.
    PodHere,
    /// An address of this node itself.
    Node,
    /// Anything else; the packet comes or goes by the uplink.
    Elsewhere,
}

/// Where a packet comes from or goes to, seen from the node whose table is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// A pod on this node.
    Pod,
    /// A process in the node's own namespace.
    Process,
    /// Anything else, by this interface of the node.
    Interface(String),
}

/// The way of a packet through a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// Where it comes from.
    pub entry: Side,
    /// Where it goes to.
    pub exit: Side,
    /// Where it was bound for before the node translated it; `None` where it does not.
    pub before_dnat: Option<Bound>,
}

/// Why a packet could not be run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RulingError {
    /// The table holds an expression that has no meaning here; somebody else wrote it.
    #[error("chain {chain} holds {expr}, which cannot be simulated")]
    Unknown {
        /// The chain.
        chain: String,
        /// The expression.
        expr: String,
    },
    /// A verdict leads to a chain that is not there, or round in a circle.
    #[error("chain {0} is missing or leads back to itself")]
    Broken(String),
}

/// Runs a flow's first packet through one node's table, on a node with one uplink of this name (`uplink`) and no translation.
/// As [`rule_through`], which knows interfaces.
pub fn rule_on(table: &Table, flow: &Flow, source: End, destination: End) -> Result<Ruling, RulingError> {
    let side = |end| match end {
        End::PodHere => Side::Pod,
        End::Node => Side::Process,
        End::Elsewhere => Side::Interface("uplink".into()),
    };
    rule_through(table, flow, &Crossing { entry: side(source), exit: side(destination), before_dnat: None })
}

/// Runs a flow's first packet through one node's table. The flow is as after DNAT.
pub fn rule_through(table: &Table, flow: &Flow, crossing: &Crossing) -> Result<Ruling, RulingError> {
    let mut causes = Vec::new();
    // host → own pod passes output, which Sluice leaves alone (semantics 1.5); what stays in the node meets nothing
    if crossing.entry == Side::Process && !matches!(crossing.exit, Side::Interface(_)) {
        return Ok(Ruling { allowed: true, causes });
    }
    let mut interface = |side: &Side, address, of: &str| match side {
        Side::Pod => {
            let found = interface_of(table, address);
            if found.is_none() {
                causes.push(format!("no pod interface owns the {of} address in the kernel"));
            }
            found.map(Some)
        }
        Side::Process => Some(None),
        Side::Interface(name) => Some(Some(name.clone())),
    };
    let ends = [
        interface(&crossing.entry, flow.source, "source"),
        interface(&crossing.exit, flow.destination, "destination"),
    ];
    let [Some(iif), Some(oif)] = ends else {
        return Ok(Ruling { allowed: false, causes });
    };
    let hooks: &[HookPoint] = match (&crossing.entry, &crossing.exit) {
        (Side::Process, _) => &[HookPoint::Output, HookPoint::Postrouting],
        (_, Side::Process) => &[HookPoint::Prerouting, HookPoint::Input],
        _ => &[HookPoint::Prerouting, HookPoint::Forward, HookPoint::Postrouting],
    };
    let mut packet = Packet {
        flow: *flow,
        iif,
        oif,
        to_host: crossing.exit == Side::Process,
        mark: 0,
        tracking: Tracking::NotYet,
        is_translated: false,
    };
    for hook in hooks {
        if !run_hook(table, *hook, crossing, flow, &mut packet, &mut causes)? {
            return Ok(Ruling { allowed: false, causes });
        }
    }
    Ok(Ruling { allowed: true, causes })
}

/// The interface that owns an address, by the sets that the source check uses.
pub fn interface_of(table: &Table, address: IpAddr) -> Option<String> {
    let set = match Family::of(address) {
        Family::V4 => OWN[0],
        Family::V6 => OWN[1],
    };
    table.sets.get(set)?.elements.keys().find_map(|key| match key {
        SetKey::Exact(parts) => match parts.as_slice() {
            [Value::Name(name), value] if *value == Value::from(address) => Some(name.clone()),
            _ => None,
        },
        SetKey::Range(..) => None,
    })
}

struct Packet {
    /// As it is now: before or after DNAT.
    flow: Flow,
    iif: Option<String>,
    oif: Option<String>,
    to_host: bool,
    mark: u32,
    tracking: Tracking,
    is_translated: bool,
}

/// What connection tracking knows of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tracking {
    /// The packet has not come so far.
    NotYet,
    New,
    /// `notrack`.
    Not,
}

/// Where conntrack and destination NAT stand at prerouting and output.
const CONNTRACK: i32 = -200;
const DNAT: i32 = -100;

/// How a rule ends.
enum Next {
    /// The next rule of the chain.
    Continue,
    Verdict(Verdict),
}

fn run_hook(
    table: &Table,
    hook: HookPoint,
    crossing: &Crossing,
    after_dnat: &Flow,
    packet: &mut Packet,
    causes: &mut Vec<String>,
) -> Result<bool, RulingError> {
    let mut chains: Vec<_> = table
        .chains
        .iter()
        .filter_map(|(name, chain)| {
            chain.base.filter(|b| b.hook == hook).map(|b| (b.priority, name, b.policy))
        })
        .collect();
    chains.sort_unstable_by_key(|(priority, ..)| *priority);
    let is_first = matches!(hook, HookPoint::Prerouting | HookPoint::Output);
    if is_first {
        packet.flow = before_dnat(after_dnat, crossing.before_dnat);
    }
    for (priority, name, policy) in chains {
        if !is_first || priority > CONNTRACK {
            packet.track();
        }
        if (!is_first || priority > DNAT) && packet.tracking == Tracking::New {
            packet.flow = *after_dnat;
            packet.is_translated = crossing.before_dnat.is_some();
        }
        let passes = match run_chain(table, name, packet, causes)? {
            Some(passes) => passes,
            None => policy == nft::Policy::Accept,
        };
        if !passes {
            return Ok(false);
        }
    }
    Ok(true)
}

fn before_dnat(flow: &Flow, bound: Option<Bound>) -> Flow {
    let mut before = *flow;
    if let Some(bound) = bound {
        before.destination = bound.address;
        if let (Transport::Ports { destination, .. }, Some(port)) = (&mut before.transport, bound.port) {
            *destination = port;
        }
    }
    before
}

/// Runs a base chain; `None` if no rule decided.
fn run_chain(
    table: &Table,
    base: &str,
    packet: &mut Packet,
    causes: &mut Vec<String>,
) -> Result<Option<bool>, RulingError> {
    let rules_of = |name: &str| {
        table.chains.get(name).map(|c| c.rules.as_slice()).ok_or_else(|| RulingError::Broken(name.to_owned()))
    };
    // the kernel allows 16 nested jumps and refuses loops; a bound on steps does the same for read-back state
    let mut budget = 10_000u32;
    let mut stack: Vec<(String, usize)> = vec![(base.to_owned(), 0)];
    while let Some((chain, at)) = stack.pop() {
        budget = budget.checked_sub(1).ok_or_else(|| RulingError::Broken(chain.clone()))?;
        let Some(rule) = rules_of(&chain)?.get(at) else { continue };
        match run_rule(table, &chain, rule, packet)? {
            Next::Continue | Next::Verdict(Verdict::Continue) => stack.push((chain, at + 1)),
            Next::Verdict(verdict) => {
                let ends = !matches!(verdict, Verdict::Jump(_) | Verdict::Goto(_));
                causes.extend(rule.comment.clone().filter(|_| ends));
                match verdict {
                    Verdict::Accept => return Ok(Some(true)),
                    Verdict::Drop => return Ok(Some(false)),
                    Verdict::Return | Verdict::Continue => {}
                    Verdict::Goto(target) => stack.push((target, 0)),
                    Verdict::Jump(target) => {
                        stack.push((chain, at + 1));
                        stack.push((target, 0));
                    }
                }
            }
        }
    }
    Ok(None)
}

fn run_rule(table: &Table, chain: &str, rule: &Rule, packet: &mut Packet) -> Result<Next, RulingError> {
    let unknown = |expr: &Expr| RulingError::Unknown { chain: chain.to_owned(), expr: format!("{expr:?}") };
    for expr in &rule.exprs {
        let matches = match expr {
            Expr::Cmp { field, op, value } => packet.read(*field).map(|v| compare(*op, v == *value)),
            Expr::Masked { field, mask, op, value } => {
                packet.read(*field).and_then(|v| number(&v)).map(|v| compare(*op, v & mask == *value))
            }
            Expr::Prefix { field, op, addr, len } => {
                packet.read(*field).map(|v| compare(*op, in_key(&SetKey::cidr(*addr, *len), &v)))
            }
            Expr::Range { field, op, first, last } => packet
                .read(*field)
                .map(|v| compare(*op, in_key(&SetKey::Range(first.clone(), last.clone()), &v))),
            Expr::NamePrefix { field, op, prefix } => match packet.read(*field) {
                Some(Value::Name(name)) => Some(compare(*op, name.starts_with(prefix.as_str()))),
                _ => None,
            },
            Expr::Lookup { key, set, op } => {
                let set = table.sets.get(set).ok_or_else(|| unknown(expr))?;
                packet.key(key).map(|key| compare(*op, find(set, &key).is_some()))
            }
            Expr::VerdictMap { key, map } => {
                let map = table.sets.get(map).ok_or_else(|| unknown(expr))?;
                match packet.key(key).and_then(|key| find(map, &key)) {
                    Some(SetValue::Verdict(verdict)) => return Ok(Next::Verdict(verdict.clone())),
                    _ => Some(true), // not in the map: the next expression, and then the next rule
                }
            }
            Expr::Verdict(verdict) => return Ok(Next::Verdict(verdict.clone())),
            Expr::Counter | Expr::Log { .. } => Some(true),
            // how much came before is not known; where the rule only writes records it makes no difference
            Expr::Limit { .. } if !rule.exprs.iter().any(|expr| matches!(expr, Expr::Verdict(_))) => {
                Some(true)
            }
            Expr::SetMark { target: MarkKind::Packet, value } => {
                packet.mark = match value {
                    MarkValue::Constant(mark) => *mark,
                    MarkValue::Derived { source: MarkKind::Packet, keep, set } => packet.mark & keep ^ set,
                    MarkValue::Derived { source: MarkKind::Conntrack, .. } => return Err(unknown(expr)),
                };
                Some(true)
            }
            Expr::Notrack => {
                if packet.tracking == Tracking::NotYet {
                    packet.tracking = Tracking::Not;
                }
                Some(true)
            }
            Expr::SetMark { target: MarkKind::Conntrack, .. }
            | Expr::Masquerade { .. }
            | Expr::Nat { .. }
            | Expr::Limit { .. }
            | Expr::Unknown(_) => return Err(unknown(expr)),
        };
        // a field that the packet does not have ends the rule, whatever the comparison
        if matches != Some(true) {
            return Ok(Next::Continue);
        }
    }
    Ok(Next::Continue)
}

impl Packet {
    fn track(&mut self) {
        if self.tracking == Tracking::NotYet {
            self.tracking = Tracking::New;
        }
    }

    /// The value of a field, `None` where the packet has none.
    fn read(&self, field: Field) -> Option<Value> {
        let ports = |pick: fn(u16, u16) -> u16| match self.flow.transport {
            Transport::Ports { source, destination, .. } => Some(Value::U16(pick(source, destination))),
            _ => None,
        };
        let icmp = |family: Family, pick: fn(u8, u8) -> u8| match self.flow.transport {
            Transport::Icmp { type_, code } if self.flow.family() == family => {
                Some(Value::U8(pick(type_, code)))
            }
            _ => None,
        };
        let address =
            |address: IpAddr, family: Family| (Family::of(address) == family).then(|| Value::from(address));
        let Flow { source, destination, .. } = self.flow;
        match field {
            Field::NfProto => Some(Value::U8(match self.flow.family() {
                Family::V4 => nft::NFPROTO_IPV4,
                Family::V6 => nft::NFPROTO_IPV6,
            })),
            Field::L4Proto => Some(Value::U8(self.flow.protocol().number())),
            Field::IifName => self.iif.clone().map(Value::Name),
            Field::OifName => self.oif.clone().map(Value::Name),
            Field::Mark => Some(Value::U32(self.mark)),
            Field::CtState => Some(Value::U32(match self.tracking {
                Tracking::NotYet => ct_state::INVALID,
                Tracking::New => ct_state::NEW,
                Tracking::Not => ct_state::UNTRACKED,
            })),
            Field::CtMark | Field::CtStatus | Field::CtDirection if self.tracking != Tracking::New => None,
            Field::CtMark => Some(Value::U32(0)),
            Field::CtStatus => Some(Value::U32(if self.is_translated { ct_status::DNAT } else { 0 })),
            Field::CtDirection => Some(Value::U8(0)),
            Field::IpSaddr => address(source, Family::V4),
            Field::IpDaddr => address(destination, Family::V4),
            Field::Ip6Saddr => address(source, Family::V6),
            Field::Ip6Daddr => address(destination, Family::V6),
            Field::IpProtocol if self.flow.family() == Family::V4 => {
                Some(Value::U8(self.flow.protocol().number()))
            }
            Field::IpTtl if self.flow.family() == Family::V4 => Some(Value::U8(64)),
            Field::Ip6HopLimit if self.flow.family() == Family::V6 => Some(Value::U8(self.hop_limit())),
            Field::ThSport => ports(|s, _| s),
            Field::ThDport => ports(|_, d| d),
            Field::TcpFlags => (self.flow.protocol() == sluice_addr::Protocol::TCP)
                .then_some(Value::U8(tcp_flags::SYN as u8)),
            Field::IcmpType => icmp(Family::V4, |t, _| t),
            Field::IcmpCode => icmp(Family::V4, |_, c| c),
            Field::Icmpv6Type => icmp(Family::V6, |t, _| t),
            Field::Icmpv6Code => icmp(Family::V6, |_, c| c),
            Field::FibDaddrType => Some(Value::U32(if self.to_host { nft::FIB_TYPE_LOCAL } else { 1 })),
            Field::IpProtocol
            | Field::IpTtl
            | Field::Ip6HopLimit
            | Field::Iif
            | Field::Oif
            | Field::IifType
            | Field::EtherSaddr
            | Field::NumgenRandom(_) => None,
        }
    }

    /// As the sender's kernel sets it: neighbour and listener discovery stay on the link (semantics 1.7).
    fn hop_limit(&self) -> u8 {
        match self.flow.transport {
            Transport::Icmp { type_: 133..=137, .. } => 255,
            Transport::Icmp { type_, .. } if MLD.contains(&type_) => 1,
            _ => 64,
        }
    }

    fn key(&self, fields: &[Field]) -> Option<Vec<Value>> {
        fields.iter().map(|field| self.read(*field)).collect()
    }
}

fn compare(op: CmpOp, equal: bool) -> bool {
    match op {
        CmpOp::Eq => equal,
        CmpOp::Ne => !equal,
    }
}

fn number(value: &Value) -> Option<u32> {
    match value {
        Value::U8(n) => Some(u32::from(*n)),
        Value::U16(n) => Some(u32::from(*n)),
        Value::U32(n) => Some(*n),
        _ => None,
    }
}

fn in_key(key: &SetKey, value: &Value) -> bool {
    match key {
        SetKey::Exact(parts) => parts.as_slice() == std::slice::from_ref(value),
        SetKey::Range(first, last) => {
            std::mem::discriminant(first) == std::mem::discriminant(value) && first <= value && value <= last
        }
    }
}

fn find<'a>(set: &'a Set, key: &[Value]) -> Option<&'a SetValue> {
    if let Some(value) = set.elements.get(&SetKey::Exact(key.to_vec())) {
        return Some(value);
    }
    let [value] = key else { return None };
    set.elements.iter().find(|(k, _)| in_key(k, value)).map(|(_, v)| v)
}
