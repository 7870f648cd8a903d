//! Sending first packets and seeing where they arrive.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RawProtocol, RecvFlags, SendFlags, SocketType};
use sluice_addr::Flow;

use super::{Cluster, Netns, node_addresses, packet};

/// Protocols that flows of tests have.
const PROTOCOLS: [u8; 9] = [1, 4, 6, 17, 47, 58, 132, 136, 253];
const IPPROTO_RAW: u32 = 255;
/// `ETH_P_ALL` in network order.
const ETH_P_ALL: u32 = 0x0003_u16.to_be() as u32;

struct Ear {
    fd: OwnedFd,
    /// `None`: packets with IP header; otherwise bodies of this protocol, sent to this address.
    body_of: Option<(u8, IpAddr)>,
}

/// Senders and ears in every namespace of a cluster.
pub struct Network<'c> {
    cluster: &'c Cluster,
    ears: Vec<Ear>,
    mouths: Vec<(Netns, [OwnedFd; 2])>,
}

fn raw(family: AddressFamily, protocol: u32) -> OwnedFd {
    let protocol = RawProtocol::new(protocol).map(Protocol::from_raw);
    rustix::net::socket(family, SocketType::RAW, protocol).unwrap()
}

impl<'c> Network<'c> {
    pub fn new(cluster: &'c Cluster) -> Self {
        let mut ears = Vec::new();
        for ns in cluster.pods.iter().map(|pod| &pod.ns).chain([&cluster.outside]) {
            let protocol = RawProtocol::new(ETH_P_ALL).map(Protocol::from_raw);
            let fd =
                ns.run(|| rustix::net::socket(AddressFamily::PACKET, SocketType::DGRAM, protocol).unwrap());
            ears.push(Ear { fd, body_of: None });
        }
        // A packet socket of the node hears before netfilter does; what a raw socket gets has passed input.
        for protocol in PROTOCOLS {
            let [v4, v6] = cluster.node.run(|| {
                [AddressFamily::INET, AddressFamily::INET6].map(|family| raw(family, u32::from(protocol)))
            });
            ears.push(Ear { fd: v4, body_of: None });
            ears.push(Ear { fd: v6, body_of: Some((protocol, node_addresses()[1])) });
        }
        let everyone = cluster.pods.iter().map(|pod| &pod.ns).chain([&cluster.outside, &cluster.node]);
        let mouths = everyone.map(|ns| {
            let fds =
                ns.run(|| [AddressFamily::INET, AddressFamily::INET6].map(|family| raw(family, IPPROTO_RAW)));
            (ns.clone(), fds)
        });
        let mouths = mouths.collect();
        Network { cluster, ears, mouths }
    }

    /// Sends a packet from a namespace.
    pub fn send(&self, from: &Netns, to: IpAddr, bytes: &[u8]) {
        let (_, fds) = self.mouths.iter().find(|(ns, _)| ns.is(from)).expect("a namespace of the cluster");
        let fd = &fds[usize::from(to.is_ipv6())];
        match rustix::net::sendto(fd, bytes, SendFlags::empty(), &SocketAddr::new(to, 0)) {
            // an output chain dropped it, and says so to the sender
            Ok(_) | Err(Errno::PERM) => {}
            Err(error) => panic!("a packet to {to} cannot be sent: {error}"),
        }
    }

    /// Sends the first packet of a flow from where its source is.
    pub fn open(&self, flow: &Flow, tag: u32, hops: u8) {
        let bytes = packet::packet(flow, tag, hops);
        self.send(self.cluster.home_of(flow.source), flow.destination, &bytes);
    }

    /// The tags that arrive where their destination is, until all of `expected` are there and `quiet` has passed since,
    /// or `limit` is over.
    pub fn listen(&self, expected: &BTreeSet<u32>, quiet: Duration, limit: Duration) -> BTreeSet<u32> {
        let mut heard = BTreeSet::new();
        let mut end = Instant::now() + limit;
        let mut complete = false;
        let mut buffer = vec![0u8; 2048];
        loop {
            if !complete && expected.is_subset(&heard) {
                complete = true;
                end = Instant::now() + quiet;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return heard;
            }
            let mut fds: Vec<PollFd<'_>> =
                self.ears.iter().map(|ear| PollFd::from_borrowed_fd(ear.fd.as_fd(), PollFlags::IN)).collect();
            let wait =
                Timespec { tv_sec: 0, tv_nsec: i64::try_from(left.as_nanos().min(999_999_999)).unwrap() };
            poll(&mut fds, Some(&wait)).unwrap();
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            for (ear, _) in self.ears.iter().zip(ready).filter(|(_, ready)| *ready) {
                while let Ok((length, _)) = rustix::net::recv(&ear.fd, &mut buffer[..], RecvFlags::DONTWAIT) {
                    heard.extend(self.arrived(ear, &buffer[..length]));
                }
            }
        }
    }

    /// The tag, if the packet has come to where its destination is and is not one on its way out of there.
    fn arrived(&self, ear: &Ear, bytes: &[u8]) -> Option<u32> {
        if let Some((protocol, _)) = ear.body_of {
            return packet::tag_of(sluice_addr::Protocol(protocol), bytes);
        }
        let (destination, tag) = packet::read(bytes)?;
        let at = self.ears.iter().position(|e| std::ptr::eq(e, ear)).expect("one of them");
        let here = match self.cluster.pods.get(at) {
            Some(pod) => pod.addresses.contains(&destination),
            None if at == self.cluster.pods.len() => {
                let elsewhere =
                    |a: IpAddr| self.cluster.pod_of(a).is_none() && !node_addresses().contains(&a);
                // from outside to outside: only what the node has forwarded, and not what is on its way to it
                let (source, hops) = packet::origin(bytes)?;
                elsewhere(destination) && !(elsewhere(source) && hops == packet::HOPS)
            }
            None => node_addresses().contains(&destination),
        };
        here.then_some(tag)
    }
}
