//! A cluster whose node has a plan in force, which a test changes object by object.

use std::net::IpAddr;

use sluice_dataplane::{Nft, Site};
use sluice_model::{Object, ObjectDelta, World};
use sluice_netlink::{Protocol, Socket};
use sluice_plan::Plan;

use super::objects::{node_scope, plain_world, plan_of};
use super::{Cluster, Netns};

/// A cluster whose node has a plan in force.
pub struct Bench {
    pub cluster: Cluster,
    pub world: World,
    pub site: Site,
    pub nft: Nft,
    pub tracked: Socket,
}

impl Bench {
    pub fn new() -> Self {
        let cluster = Cluster::new();
        let (world, keys) = plain_world(&cluster);
        let (site, nft) = (cluster.site(&keys), cluster.nft());
        let tracked = cluster.node.socket(Protocol::Netfilter);
        let mut bench = Bench { cluster, world, site, nft, tracked };
        bench.program();
        bench.cluster.node.sysctl("netfilter/nf_conntrack_tcp_loose", "1");
        bench
    }

    pub fn plan(&self) -> Plan {
        plan_of(&self.world, node_scope())
    }

    pub fn program(&mut self) -> Plan {
        let plan = self.plan();
        assert_eq!(self.nft.apply(&plan, &self.site).unwrap().quarantined, []);
        plan
    }

    pub fn put(&mut self, object: Object) -> Plan {
        self.world.apply(ObjectDelta::Upsert(object));
        self.program()
    }

    pub fn remove(&mut self, object: &Object) -> Plan {
        self.world.apply(ObjectDelta::Delete(object.key()));
        self.program()
    }

    pub fn ns(&self, pod: usize) -> &Netns {
        &self.cluster.pods[pod].ns
    }

    pub fn address(&self, pod: usize, family: usize) -> IpAddr {
        self.cluster.pods[pod].addresses[family]
    }
}
