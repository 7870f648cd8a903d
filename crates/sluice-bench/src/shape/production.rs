//! The production shape of Calico's user-mode evaluation, `BenchmarkEvaluateBaselinePolicyScale` in app-policy/checker
//! (projectcalico/calico pull request 13286): 294 policies of 68 rules that all apply to one endpoint, and 3,708 sets.
//!
//! Published: 3.7 ms for one evaluation that walks all rules. There rules without a set carry a port that never matches
//! and no address; here they are of the kinds that such rule sets have (pull request 13408): half name CIDRs, half a
//! protocol and ports. All rules are ingress rules of one tier that denies by default, and sets are peers: a set that
//! is compared with the subject's own address would be decided when compiling.

use sluice_addr::{Cidr, PortRange, Protocol};
use sluice_engine::Scope;
use sluice_model::{Action, CalicoRule, EntityRule, Object, Order, PortMatch, RuleBody, Tier, TierDefault};
use std::net::{IpAddr, Ipv4Addr};

use super::{Instance, Size};
use crate::make::{
    PodSpec, PolicyMaker, global_set, labels, mix, namespace, node, node_name, pick, pod, selected,
};

const POLICIES: usize = 294;
const RULES: usize = 68;
const DENIES: usize = 10;
/// Of 1,000 rules so many use a set.
const WITH_SET: u64 = 242;
const MEMBERS: usize = 256_000;
/// How many sets have at least and at most so many members.
const SETS: [(usize, usize, usize); 5] =
    [(4, 0, 0), (3_035, 1, 9), (446, 10, 99), (64, 100, 999), (1, 54_566, 54_566)];
/// Sets of 1,000 to 9,999 members. They share what the others leave of [`MEMBERS`].
const LARGE: usize = 158;
const PORTS: [u16; 48] = [
    22, 25, 53, 80, 88, 110, 123, 135, 139, 143, 161, 389, 443, 445, 464, 514, 587, 636, 993, 995, 1433,
    1521, 1883, 2049, 2379, 2380, 3268, 3306, 3389, 4222, 5044, 5432, 5671, 5672, 5985, 6379, 6443, 8080,
    8081, 8200, 8443, 8500, 9000, 9042, 9090, 9092, 9200, 27017,
];

/// The rules, the sets and one pod.
pub(crate) fn production(size: Size) -> Instance {
    let seed = size.seed;
    let sizes = set_sizes(size);
    let (policies, set_count) = (size.of(POLICIES, 6), sizes.len() as u64);
    let first = [
        namespace("prod", labels([("kubernetes.io/metadata.name", "prod")])),
        node(0),
        Object::Tier(Tier {
            name: "perimeter".into(),
            order: Order::new(Some(100.0)),
            default_action: TierDefault::Deny,
        }),
    ];
    let mut member = 0;
    let sets = sizes.into_iter().enumerate().map(move |(n, members)| {
        let nets = (member..member + members).map(|at| set_member(seed, at)).collect();
        member += members;
        global_set(&format!("set-{n:04}"), ("set", &format!("s{n:04}")), nets)
    });
    let endpoint = std::iter::once_with(|| {
        let app = labels([("app", "api")]);
        let ports = &[];
        // far from the members of sets, which lie in 10.0.0.0/8 from its start
        let mut pod =
            pod(PodSpec { namespace: "prod", name: "api-0", number: 0, node: 0, labels: app, ports });
        pod.addresses = vec!["192.168.7.7".parse().expect("an address")];
        Object::Pod(pod)
    });
    let total = policies * RULES;
    let policies = (0..policies).map(move |n| {
        let policy = PolicyMaker::calico("", &format!("policy-{n:03}"), "all()").tier("perimeter", n as f64);
        let with_rule = |policy: PolicyMaker, j| {
            let number = n * RULES + j;
            policy.ingress(action(seed, number, total), body(seed, number as u64, set_count))
        };
        (0..RULES).fold(policy, with_rule).object()
    });
    Instance {
        scope: Scope::Node(node_name(0).into()),
        objects: Box::new(first.into_iter().chain(sets).chain(endpoint).chain(policies)),
        ports: PORTS.to_vec(),
    }
}

/// The members of each set, in a mixed order.
fn set_sizes(size: Size) -> Vec<usize> {
    let mut sizes = Vec::new();
    for (count, least, most) in SETS {
        for n in 0..size.of(count, 1) {
            // small numbers are frequent within each bracket
            let at = (mix(size.seed, (least * 7 + n) as u64) % 1_000) as f64 / 1_000.0;
            let members = least + ((most - least + 1) as f64 * at.powi(4)) as usize;
            // the one giant set shrinks with the rest
            sizes.push(if least > 10_000 { size.of(members, 100) } else { members.min(most) });
        }
    }
    let large = size.of(LARGE, 1);
    let left = size.of(MEMBERS, 0).saturating_sub(sizes.iter().sum());
    sizes.extend((0..large).map(|n| left / large + usize::from(n < left % large)));
    let seed = size.seed;
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|n| mix(seed, 1_000_000 + *n as u64));
    order.into_iter().map(|n| sizes[n]).collect()
}

/// Mostly single addresses, one in five a small block. No two members meet.
fn set_member(seed: u64, at: usize) -> Cidr {
    let base = (10 << 24) + u32::try_from(at * 32).expect("members fit 10.0.0.0/8");
    let prefix = match mix(seed ^ 0x5e7, at as u64) % 10 {
        0 => 28,
        1 => 29,
        _ => 32,
    };
    Cidr::new(IpAddr::V4(Ipv4Addr::from_bits(base)), prefix).expect("a prefix of IPv4")
}

/// Ten rules deny, one allows, the rest pass.
fn action(seed: u64, number: usize, total: usize) -> Action {
    let place = |n: usize| (mix(seed ^ 0xac7, n as u64) % total as u64) as usize;
    if number == place(DENIES) {
        Action::Allow
    } else if (0..DENIES).any(|n| number == place(n)) {
        Action::Deny
    } else {
        Action::Pass
    }
}

fn body(seed: u64, number: u64, sets: u64) -> RuleBody {
    let draw = mix(seed ^ 0xb0d, number);
    let ports = |count: u64| -> Vec<PortMatch> {
        (0..count).map(|n| PortMatch::Range(PortRange::single(*pick(&PORTS, draw, n)))).collect()
    };
    let mut rule = CalicoRule::default();
    if draw % 1_000 < WITH_SET {
        rule.source = selected(&format!("set == 's{:04}'", mix(draw, 1) % sets));
        if draw & (1 << 20) != 0 {
            rule.protocol = Some(Protocol::TCP);
            rule.destination.ports = ports(1 + draw % 3);
        }
    } else if draw & (1 << 21) != 0 {
        let nets = (0..1 + draw % 4).map(|n| block(mix(draw, n + 10))).collect();
        rule.source = EntityRule { nets, ..EntityRule::default() };
        if draw & (1 << 20) != 0 {
            rule.protocol = Some(Protocol::TCP);
            rule.destination.ports = ports(1 + draw % 3);
        }
    } else {
        rule.protocol = Some(*pick(&[Protocol::TCP, Protocol::TCP, Protocol::TCP, Protocol::UDP], draw, 7));
        rule.destination.ports = ports(1 + draw % 4);
    }
    RuleBody::Calico(Box::new(rule))
}

/// A block of a company's networks or of the internet, of 16 to 32 bits.
fn block(draw: u64) -> Cidr {
    let prefix = *pick(&[16, 20, 22, 24, 24, 24, 26, 27, 28, 32, 32], draw, 1);
    let bits = (draw >> 32) as u32;
    let base = match draw % 4 {
        0 => (10 << 24) | bits & 0x00ff_ffff,
        1 => (172 << 24) | (16 << 16) | bits & 0x000f_ffff,
        _ => bits % 0xdf00_0000,
    };
    Cidr::new(IpAddr::V4(Ipv4Addr::from_bits(base)), prefix).expect("a prefix of IPv4")
}
