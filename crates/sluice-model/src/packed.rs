//! Policies in few bytes, for whoever keeps very many of them and reads few.
//!
//! A [`Policy`] is a tree that is pleasant to read and takes a kilobyte and more; packed it takes about as much as its
//! text. The bytes live as long as the process: they are written and read by this module alone and have no version.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use sluice_addr::{Cidr, Family, PortRange, Protocol};
use sluice_selector::{LabelSelector, Operator, Requirement, Selector};

use crate::object::{Kind, ObjectKey, Order};
use crate::rule::*;

/// All of a policy but its key, in few bytes. With equal keys two are equal if and only if the policies are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedPolicy(Box<[u8]>);

impl PackedPolicy {
    /// Packs a policy, by way of a buffer that spares room in between to whoever packs many.
    pub fn new(policy: &Policy, buffer: &mut Vec<u8>) -> Self {
        buffer.clear();
        let Policy { key, tier, order, subject, ingress, egress, host, staged, position } = policy;
        let file = position.as_ref().map(|position| &position.file);
        let mut to = Packer { bytes: buffer, key, file: None };
        tier.pack(&mut to);
        order.pack(&mut to);
        subject.pack(&mut to);
        host.pack(&mut to);
        staged.pack(&mut to);
        position.pack(&mut to);
        to.file = file;
        [ingress.is_some(), egress.is_some()].iter().for_each(|speaks| speaks.pack(&mut to));
        [ingress, egress].into_iter().flatten().for_each(|rules| rules.pack(&mut to));
        PackedPolicy(buffer.as_slice().into())
    }

    /// The policy with this key.
    pub fn policy(&self, key: &ObjectKey) -> Policy {
        let mut from = Unpacker { bytes: &self.0, key, file: None };
        let mut policy = Policy {
            key: key.clone(),
            tier: Packed::unpack(&mut from),
            order: Packed::unpack(&mut from),
            subject: Packed::unpack(&mut from),
            ingress: None,
            egress: None,
            host: Packed::unpack(&mut from),
            staged: Packed::unpack(&mut from),
            position: Packed::unpack(&mut from),
        };
        from.file = policy.position.as_ref().map(|position| position.file.clone());
        let speaks = [(); 2].map(|()| bool::unpack(&mut from));
        [policy.ingress, policy.egress] = speaks.map(|speaks| speaks.then(|| Packed::unpack(&mut from)));
        policy
    }
}

/// What has a packed form. Reading takes as many bytes as were written, and gives the same value.
trait Packed: Sized {
    fn pack(&self, to: &mut Packer<'_>);
    fn unpack(from: &mut Unpacker<'_>) -> Self;
}

struct Packer<'a> {
    bytes: &'a mut Vec<u8>,
    /// The key of the policy, which its rules repeat.
    key: &'a ObjectKey,
    /// The file of the policy, which its rules repeat.
    file: Option<&'a Arc<str>>,
}

struct Unpacker<'a> {
    bytes: &'a [u8],
    key: &'a ObjectKey,
    file: Option<Arc<str>>,
}

impl Unpacker<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (first, rest) = self.bytes.split_first_chunk().expect("what is read was written");
        self.bytes = rest;
        *first
    }

    fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }
}

/// Packs the fields of a struct in the order in which they are listed, and of an enum a number and then its fields.
macro_rules! packed {
    (struct $type:ident { $($field:ident),* }) => {
        impl Packed for $type {
            fn pack(&self, to: &mut Packer<'_>) {
                let $type { $($field),* } = self;
                $($field.pack(to);)*
            }

            fn unpack(from: &mut Unpacker<'_>) -> Self {
                $(let $field = Packed::unpack(from);)*
                $type { $($field),* }
            }
        }
    };
    (enum $type:ident { $($number:literal: $variant:ident $(($($item:ident),*))? $({ $($field:ident),* })?),* }) => {
        impl Packed for $type {
            fn pack(&self, to: &mut Packer<'_>) {
                match self {
                    $($type::$variant $(($($item),*))? $({ $($field),* })? => {
                        to.bytes.push($number);
                        $($($item.pack(to);)*)?
                        $($($field.pack(to);)*)?
                    })*
                }
            }

            fn unpack(from: &mut Unpacker<'_>) -> Self {
                match from.byte() {
                    $($number => {
                        $($(let $item = Packed::unpack(from);)*)?
                        $($(let $field = Packed::unpack(from);)*)?
                        $type::$variant $(($($item),*))? $({ $($field),* })?
                    })*
                    other => unreachable!("no variant of {} has number {other}", stringify!($type)),
                }
            }
        }
    };
}

packed!(enum Subject {
    0: Kubernetes(selector),
    1: Calico { selector, namespace_selector, service_account_selector },
    2: Cluster { namespaces, pods }
});
packed!(enum HostUse { 0: Normal, 1: Forward, 2: PreDnat, 3: Untracked });
packed!(enum StagedAction { 0: Set, 1: Learn, 2: Delete, 3: Ignore });

packed!(struct Rule { action, body, reference });
packed!(enum Action { 0: Allow, 1: Deny, 2: Pass, 3: Log });
packed!(enum RuleBody {
    0: Kubernetes { peers, ports },
    1: Calico(rule),
    2: Cluster { peers, protocols },
    3: Unreadable
});
packed!(enum KubernetesPeer { 0: IpBlock { cidr, except }, 1: Selectors { pods, namespaces } });
packed!(struct KubernetesPort { protocol, port });
packed!(enum PortMatch { 0: Any, 1: Range(range), 2: Named(name) });
packed!(enum ClusterPeer { 0: Pods { namespaces, pods }, 1: Networks(cidrs), 2: Nodes(selector), 3: DomainNames(names) });
packed!(struct DomainPattern { name, wildcard });
packed!(enum ClusterProtocol { 0: Port(port), 1: Named(name) });
packed!(struct CalicoRule { ip_version, protocol, not_protocol, icmp, not_icmp, source, destination });
packed!(struct IcmpMatch { type_, code });
packed!(struct EntityRule {
    nets, not_nets, selector, not_selector, namespace_selector, service_accounts, ports, not_ports, service
});
packed!(enum NamespaceScope { 0: Global, 1: Matching(selector) });
packed!(struct ServiceAccountMatch { names, selector });

packed!(enum Selector {
    0: All, 1: Global, 2: Has(key), 3: Equals(key, value), 4: NotEquals(key, value), 5: In(key, values),
    6: NotIn(key, values), 7: Contains(key, part), 8: StartsWith(key, part), 9: EndsWith(key, part),
    10: Not(inner), 11: And(all), 12: Or(any)
});
packed!(struct LabelSelector { match_labels, match_expressions });
packed!(struct Requirement { key, operator, values });
packed!(enum Operator { 0: In, 1: NotIn, 2: Exists, 3: DoesNotExist });
packed!(enum Family { 0: V4, 1: V6 });

packed!(struct ObjectKey { kind, namespace, name });
packed!(enum Kind {
    0: Namespace, 1: Node, 2: ServiceAccount, 3: Tier, 4: GlobalNetworkSet, 5: NetworkSet, 6: HostEndpoint,
    7: Service, 8: EndpointSlice, 9: Pod, 10: KubernetesNetworkPolicy, 11: NetworkPolicy, 12: GlobalNetworkPolicy,
    13: KubernetesClusterNetworkPolicy, 14: AdminNetworkPolicy, 15: BaselineAdminNetworkPolicy,
    16: StagedGlobalNetworkPolicy, 17: StagedNetworkPolicy, 18: StagedKubernetesNetworkPolicy, 19: Profile,
    20: ProjectIsolation, 21: ResolvedName
});

/// Nearly every rule refers to itself: its own policy, and its own number there.
impl Packed for RuleRef {
    fn pack(&self, to: &mut Packer<'_>) {
        let RuleRef { object, path, position } = self;
        (object != to.key).then(|| object.clone()).pack(to);
        Path::of(path).pack(to);
        position.pack(to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let object = Option::unpack(from).unwrap_or_else(|| from.key.clone());
        let path = match Path::unpack(from) {
            Path::Ingress(number) => format!("spec.ingress[{number}]").into(),
            Path::Egress(number) => format!("spec.egress[{number}]").into(),
            Path::Other(path) => path,
        };
        RuleRef { object, path, position: Packed::unpack(from) }
    }
}

/// The path of a rule.
enum Path {
    Ingress(u32),
    Egress(u32),
    Other(Arc<str>),
}

packed!(enum Path { 0: Ingress(number), 1: Egress(number), 2: Other(path) });

impl Path {
    fn of(path: &Arc<str>) -> Self {
        let number = |start| {
            let digits = path.strip_prefix(start)?.strip_suffix(']')?;
            // only as it is written back
            let plain = digits == "0" || digits.starts_with(|first: char| matches!(first, '1'..='9'));
            digits.parse().ok().filter(|_| plain)
        };
        let ingress = number("spec.ingress[").map(Path::Ingress);
        let egress = || number("spec.egress[").map(Path::Egress);
        ingress.or_else(egress).unwrap_or_else(|| Path::Other(path.clone()))
    }
}

/// Nearly every position in a policy is in the policy's file.
impl Packed for Position {
    fn pack(&self, to: &mut Packer<'_>) {
        let other = (to.file != Some(&self.file)).then(|| self.file.clone());
        other.pack(to);
        self.line.pack(to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let other = Option::unpack(from).or_else(|| from.file.clone());
        Position {
            file: other.expect("a file that is not named is the policy's"),
            line: Packed::unpack(from),
        }
    }
}

impl Packed for Order {
    fn pack(&self, to: &mut Packer<'_>) {
        to.bytes.extend(self.value().to_be_bytes());
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        Order::new(Some(f64::from_be_bytes(from.array())))
    }
}

impl Packed for Cidr {
    fn pack(&self, to: &mut Packer<'_>) {
        self.family().pack(to);
        to.bytes.push(self.prefix());
        match self.base() {
            IpAddr::V4(base) => to.bytes.extend(base.octets()),
            IpAddr::V6(base) => to.bytes.extend(base.octets()),
        }
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let (family, prefix) = (Family::unpack(from), from.byte());
        let base: IpAddr = match family {
            Family::V4 => Ipv4Addr::from(from.array()).into(),
            Family::V6 => Ipv6Addr::from(from.array()).into(),
        };
        Cidr::new(base, prefix).expect("a block is packed as it is")
    }
}

impl Packed for PortRange {
    fn pack(&self, to: &mut Packer<'_>) {
        [self.first(), self.last()].map(u32::from).iter().for_each(|port| port.pack(to));
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let [first, last] = [(); 2].map(|()| u32::unpack(from) as u16);
        PortRange::new(first, last).expect("a range is packed as it is")
    }
}

impl Packed for Protocol {
    fn pack(&self, to: &mut Packer<'_>) {
        to.bytes.push(self.number());
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        Protocol(from.byte())
    }
}

impl Packed for bool {
    fn pack(&self, to: &mut Packer<'_>) {
        to.bytes.push(u8::from(*self));
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        from.byte() == 1
    }
}

impl Packed for u8 {
    fn pack(&self, to: &mut Packer<'_>) {
        to.bytes.push(*self);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        from.byte()
    }
}

/// Seven bits to a byte, the lowest first; the eighth says that more follow.
impl Packed for u32 {
    fn pack(&self, to: &mut Packer<'_>) {
        let mut left = *self;
        while left >= 0x80 {
            to.bytes.push(left as u8 | 0x80);
            left >>= 7;
        }
        to.bytes.push(left as u8);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let byte = from.byte();
            number |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }
}

impl Packed for usize {
    fn pack(&self, to: &mut Packer<'_>) {
        u32::try_from(*self).expect("parts of a policy are fewer than 2^32").pack(to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        u32::unpack(from) as usize
    }
}

impl Packed for Arc<str> {
    fn pack(&self, to: &mut Packer<'_>) {
        self.len().pack(to);
        to.bytes.extend(self.as_bytes());
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let length = usize::unpack(from);
        let (text, rest) = from.bytes.split_at(length);
        from.bytes = rest;
        std::str::from_utf8(text).expect("a text is packed as it is").into()
    }
}

impl<T: Packed> Packed for Option<T> {
    fn pack(&self, to: &mut Packer<'_>) {
        self.is_some().pack(to);
        if let Some(value) = self {
            value.pack(to);
        }
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        bool::unpack(from).then(|| T::unpack(from))
    }
}

impl<T: Packed> Packed for Box<T> {
    fn pack(&self, to: &mut Packer<'_>) {
        T::pack(self, to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        Box::new(T::unpack(from))
    }
}

impl<A: Packed, B: Packed> Packed for (A, B) {
    fn pack(&self, to: &mut Packer<'_>) {
        self.0.pack(to);
        self.1.pack(to);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        (A::unpack(from), B::unpack(from))
    }
}

impl<T: Packed> Packed for Vec<T> {
    fn pack(&self, to: &mut Packer<'_>) {
        self.len().pack(to);
        self.iter().for_each(|item| item.pack(to));
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        (0..usize::unpack(from)).map(|_| T::unpack(from)).collect()
    }
}

impl<T: Packed + Ord> Packed for BTreeSet<T> {
    fn pack(&self, to: &mut Packer<'_>) {
        self.len().pack(to);
        self.iter().for_each(|item| item.pack(to));
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        (0..usize::unpack(from)).map(|_| T::unpack(from)).collect()
    }
}

impl<K: Packed + Ord, V: Packed> Packed for BTreeMap<K, V> {
    fn pack(&self, to: &mut Packer<'_>) {
        self.len().pack(to);
        for (key, value) in self {
            key.pack(to);
            value.pack(to);
        }
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        (0..usize::unpack(from)).map(|_| Packed::unpack(from)).collect()
    }
}
