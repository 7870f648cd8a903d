//! Pod CIDRs of nodes: the lowest free block of each cluster range.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde_json::{Value, json};

use super::{
    client::Request,
    world::{Kind, ObjectRef, Touched, World, items, text},
};

/// A range that is divided into blocks for nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterCidr {
    range: Block,
    node_prefix: u8,
}

impl ClusterCidr {
    /// A range and the prefix length of a node's block in it, for example `10.42.0.0/16` and 24. `None` if
    /// the range is no CIDR, or the block is larger than the range or longer than an address.
    pub fn new(range: &str, node_prefix: u8) -> Option<ClusterCidr> {
        let range = Block::parse(range)?;
        (range.prefix <= node_prefix && node_prefix <= range.width())
            .then_some(ClusterCidr { range, node_prefix })
    }

    /// The block with this number; `None` behind the end of the range.
    fn block(self, number: u32) -> Option<Block> {
        let bits = u32::from(self.node_prefix - self.range.prefix);
        if bits < 32 && number >> bits != 0 {
            return None;
        }
        let base = match self.range.base {
            IpAddr::V4(base) => {
                let offset = number.checked_shl(32 - u32::from(self.node_prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(base.to_bits() | offset))
            }
            IpAddr::V6(base) => {
                let offset = u128::from(number).checked_shl(128 - u32::from(self.node_prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(base.to_bits() | offset))
            }
        };
        Some(Block { base, prefix: self.node_prefix })
    }
}

/// A CIDR without host bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Block {
    base: IpAddr,
    prefix: u8,
}

impl Block {
    fn parse(text: &str) -> Option<Block> {
        let (base, prefix) = text.split_once('/')?;
        let block = Block { base: base.parse().ok()?, prefix: prefix.parse().ok()? };
        (block.prefix <= block.width()).then(|| Block { base: block.masked(block.prefix), ..block })
    }

    fn width(self) -> u8 {
        if self.base.is_ipv4() { 32 } else { 128 }
    }

    /// The first address of the network of this length that holds the block.
    fn masked(self, prefix: u8) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(base.to_bits() & mask))
            }
            IpAddr::V6(base) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(base.to_bits() & mask))
            }
        }
    }

    fn overlaps(self, other: Block) -> bool {
        let shorter = self.prefix.min(other.prefix);
        self.base.is_ipv4() == other.base.is_ipv4() && self.masked(shorter) == other.masked(shorter)
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// Gives blocks to nodes and remembers those whose write has not come back yet.
#[derive(Debug)]
pub(super) struct Allocator {
    ranges: Vec<ClusterCidr>,
    assumed: HashMap<String, Vec<Block>>,
}

impl Allocator {
    pub(super) fn new(ranges: Vec<ClusterCidr>) -> Allocator {
        Allocator { ranges, assumed: HashMap::new() }
    }

    pub(super) fn observe(&mut self, touched: &Touched) {
        if touched.object.kind.name() == ("", "Node")
            && touched.new.as_deref().is_none_or(|node| !blocks(node).is_empty())
        {
            self.forget(&touched.object.name);
        }
    }

    pub(super) fn forget(&mut self, node: &str) {
        self.assumed.remove(node);
    }

    pub(super) fn decide(&mut self, world: &World, name: &str) -> Vec<Request> {
        let nodes = Kind::of("", "Node");
        let Some(node) = world.get(&ObjectRef::new(nodes, "", name)) else { return Vec::new() };
        if !blocks(&node).is_empty() || self.assumed.contains_key(name) || self.ranges.is_empty() {
            return Vec::new();
        }
        let mut used: HashSet<Block> = world.list(nodes).flat_map(blocks).collect();
        used.extend(self.assumed.values().flatten());
        let free = |range: &ClusterCidr| {
            // Blocks of other sizes may have been written by hand; they only need to be disjoint.
            (0..)
                .map_while(|n| range.block(n))
                .find(|block| !used.contains(block) && !used.iter().any(|u| u.overlaps(*block)))
        };
        let Some(chosen) = self.ranges.iter().map(free).collect::<Option<Vec<Block>>>() else {
            tracing::warn!(node = name, "no pod CIDR is free: the cluster ranges are used up");
            return Vec::new();
        };
        let shown: Vec<String> = chosen.iter().map(Block::to_string).collect();
        self.assumed.insert(name.to_string(), chosen);
        // With the version, so that a block written by somebody else in the meantime is a conflict.
        let patch = json!({
            "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
            "spec": {"podCIDR": shown.first(), "podCIDRs": shown},
        });
        vec![Request::merge(nodes, "", name, "", patch)]
    }
}

fn blocks(node: &Value) -> Vec<Block> {
    let listed = items(node, "/spec/podCIDRs").iter().filter_map(Value::as_str);
    let mut blocks: Vec<Block> = listed.filter_map(Block::parse).collect();
    if blocks.is_empty() {
        blocks.extend(Block::parse(text(node, "/spec/podCIDR")));
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::world::Change;

    fn range(cidr: &str, prefix: u8) -> ClusterCidr {
        ClusterCidr::new(cidr, prefix).unwrap()
    }

    fn node(name: &str, cidrs: &[&str]) -> Value {
        json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1"}, "spec": {"podCIDRs": cidrs}})
    }

    #[test]
    fn blocks_are_numbered_within_the_range() {
        let v4 = range("10.42.0.0/16", 24);
        assert_eq!(v4.block(0).unwrap().to_string(), "10.42.0.0/24");
        assert_eq!(v4.block(255).unwrap().to_string(), "10.42.255.0/24");
        assert_eq!(v4.block(256), None);
        let v6 = range("fd00:10:42::/56", 64);
        assert_eq!(v6.block(3).unwrap().to_string(), "fd00:10:42:3::/64");
        assert_eq!(v6.block(256), None);
        assert_eq!(range("10.0.0.0/24", 24).block(1), None);
        for (bad, prefix) in
            [("10.0.0.0/16", 8), ("10.0.0.0/16", 33), ("10.0.0.0", 24), ("10.0.0.0/33", 33), ("x/1", 2)]
        {
            assert!(ClusterCidr::new(bad, prefix).is_none(), "{bad}");
        }
        assert!(Block::parse("10.0.0.0/8").unwrap().overlaps(Block::parse("10.1.0.0/16").unwrap()));
        assert!(!Block::parse("0.0.0.0/0").unwrap().overlaps(Block::parse("::/0").unwrap()));
    }

    #[test]
    fn nodes_get_the_lowest_free_blocks_of_both_families() {
        let kind = Kind::of("", "Node");
        let mut world = World::default();
        world.apply(Change::Replaced(
            kind,
            vec![node("a", &["10.42.0.0/24"]), node("b", &[]), node("c", &[]), node("d", &["10.42.2.0/25"])],
        ));
        let mut allocator = Allocator::new(vec![range("10.42.0.0/16", 24), range("fd00::/56", 64)]);
        let mut cidrs = |name: &str| {
            let requests = allocator.decide(&world, name);
            requests.first().map(|r| r.body["spec"]["podCIDRs"].clone())
        };
        assert_eq!(cidrs("a"), None);
        assert_eq!(cidrs("b"), Some(json!(["10.42.1.0/24", "fd00::/64"])));
        assert_eq!(cidrs("b"), None, "its write is on the way");
        assert_eq!(cidrs("c"), Some(json!(["10.42.3.0/24", "fd00:0:0:1::/64"])));
        allocator.forget("b");
        let again = allocator.decide(&world, "b");
        assert_eq!(again[0].body["spec"]["podCIDR"], "10.42.1.0/24");
    }

    #[test]
    fn a_full_range_gives_nothing() {
        let mut world = World::default();
        world
            .apply(Change::Replaced(Kind::of("", "Node"), vec![node("a", &["10.0.0.0/24"]), node("b", &[])]));
        let mut allocator = Allocator::new(vec![range("10.0.0.0/24", 24)]);
        assert_eq!(allocator.decide(&world, "b"), vec![]);
    }
}
