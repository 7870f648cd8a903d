//! Pods as they come, change and go.

use std::net::IpAddr;

use sluice_addr::canonical_ip;
use sluice_model as model;
use smallvec::SmallVec;

use crate::core::Core;
use crate::endpoints::LocalPod;
use crate::engine::Scope;
use crate::ids::{PodId, ShapeId};
use crate::named_ports::port_texts;
use crate::nodes::Witness;
use crate::pods::Pod;
use crate::shapes::Looks;

impl Core {
    /// Takes in a pod; whether anything is different from what was known of it.
    pub(crate) fn upsert_pod(&mut self, pod: &model::Pod) -> bool {
        let live = pod.live_addresses();
        let is_node = pod.host_network && !pod.finished;
        let local = !live.is_empty()
            && match &self.scope {
                Scope::Node(name) => pod.node.as_ref() == Some(name),
                Scope::Cluster => true,
            };
        let mut addresses: SmallVec<[IpAddr; 2]> = SmallVec::new();
        for address in if is_node { &pod.addresses } else { live } {
            let address = canonical_ip(*address);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let symbols = &mut self.catalog.symbols;
        let known = self.pods.find(&pod.key.namespace, &pod.key.name, symbols);
        let shape = (!live.is_empty()).then(|| {
            let looks = Looks {
                namespace: &pod.key.namespace,
                account: &pod.service_account,
                labels: &pod.labels,
                ports: port_texts(&pod.named_ports),
            };
            self.shapes.take(&looks, symbols)
        });
        let node = pod.node.as_ref().map(|node| symbols.take(node));
        let id = match known {
            Some(id) => id,
            None => {
                let namespace = match shape {
                    Some(shape) => symbols.retain(self.shapes.of(shape).key.namespace),
                    None => symbols.take(&pod.key.namespace),
                };
                self.pods.insert(Pod::new(namespace, pod.key.name.clone()), symbols)
            }
        };
        let info = local.then(|| (pod.uid.clone(), pod.node.clone()));
        let old = self.pods.of(id);
        let same_endpoint = match (&info, self.locals.get(&id)) {
            (None, None) => true,
            (Some((uid, node)), Some(local)) => local.alive && local.uid == *uid && local.node == *node,
            (None, Some(local)) => !local.alive,
            (Some(_), None) => false,
        };
        let same_claims =
            old.addresses == addresses && old.deleting == pod.deleting && old.is_node == is_node;
        let same_owner = same_claims && old.shape == shape;
        let unchanged =
            known.is_some() && same_endpoint && same_owner && old.node == node && old.local == local;
        if unchanged {
            node.into_iter().for_each(|node| symbols.release(node));
            if let Some(shape) = shape {
                self.give_back_shape(shape);
            }
            return false;
        }
        let only_looks = same_claims && old.node == node && old.shape.is_some() && shape.is_some();
        if !same_owner && only_looks {
            node.into_iter().for_each(|node| symbols.release(node));
            self.reshape(id, shape);
        } else if !same_owner || old.node != node {
            self.withdraw(id, &pod.key);
            let record = self.pods.of_mut(id);
            (record.shape, record.deleting, record.is_node) = (shape, pod.deleting, is_node);
            record.addresses = addresses;
            let old_node = std::mem::replace(&mut record.node, node);
            old_node.into_iter().for_each(|node| self.catalog.symbols.release(node));
            self.present(id, &pod.key);
        } else {
            node.into_iter().for_each(|node| symbols.release(node));
            if let Some(shape) = shape {
                self.give_back_shape(shape);
            }
        }
        self.pods.of_mut(id).local = local;
        match (info, self.locals.get_mut(&id)) {
            (Some((uid, node)), Some(local)) => (local.uid, local.node, local.alive) = (uid, node, true),
            (Some((uid, node)), None) => {
                self.locals.insert(id, LocalPod::new(pod.key.clone(), uid, node));
            }
            (None, Some(local)) => local.alive = false,
            (None, None) => return true,
        }
        self.dirty.pods.push(id);
        true
    }

    /// A pod is gone; whether it was known.
    pub(crate) fn delete_pod(&mut self, key: &model::PodKey) -> bool {
        let known = self.pods.find(&key.namespace, &key.name, &self.catalog.symbols);
        let Some(id) = known else { return false };
        self.withdraw(id, key);
        if let Some(local) = self.locals.get_mut(&id) {
            local.alive = false;
            self.dirty.pods.push(id);
        }
        if let Some(pod) = self.pods.remove(id, &self.catalog.symbols) {
            pod.node.into_iter().for_each(|node| self.catalog.symbols.release(node));
            self.catalog.symbols.release(pod.namespace);
        }
        true
    }

    /// The keys of all pods.
    pub(crate) fn pod_keys(&self) -> Vec<model::ObjectKey> {
        let key = |pod: &Pod| {
            let namespace = self.catalog.symbols.text(pod.namespace).into();
            model::ObjectKey { kind: model::Kind::Pod, namespace, name: pod.name.clone() }
        };
        self.pods.iter().map(|(_, pod)| key(pod)).collect()
    }

    /// A pod that keeps its addresses has another shape now. Takes over one use of it.
    fn reshape(&mut self, id: PodId, shape: Option<ShapeId>) {
        let record = self.pods.of_mut(id);
        let old = std::mem::replace(&mut record.shape, shape);
        self.dirty.hosts.extend_from_slice(&record.addresses);
        if let Some(old) = old {
            self.pods.unlink(id, &mut self.shapes.of_mut(old).head);
            self.give_back_shape(old);
        }
        if let Some(shape) = shape {
            self.pods.link(id, &mut self.shapes.of_mut(shape).head);
        }
    }

    /// Takes a pod's addresses and shape away from it, if it has any.
    fn withdraw(&mut self, id: PodId, key: &model::PodKey) {
        let record = self.pods.of_mut(id);
        let addresses = std::mem::take(&mut record.addresses);
        let shape = record.shape.take();
        if record.is_node {
            if let Some(node) = record.node {
                let witness = self.witness(key, node);
                addresses.iter().for_each(|address| self.nodes.remove(*address, &witness));
            }
            return;
        }
        for address in addresses {
            let others = self.pods.hosts.disclaim(address, id);
            self.touch_host(address, &others);
        }
        if let Some(shape) = shape {
            self.pods.unlink(id, &mut self.shapes.of_mut(shape).head);
            self.give_back_shape(shape);
        }
    }

    /// Gives effect to a pod's addresses and shape.
    fn present(&mut self, id: PodId, key: &model::PodKey) {
        let record = self.pods.of(id);
        let addresses: SmallVec<[IpAddr; 2]> = SmallVec::from_slice(&record.addresses);
        if record.is_node {
            if let Some(node) = record.node {
                let witness = self.witness(key, node);
                addresses.iter().for_each(|address| self.nodes.add(*address, witness.clone()));
            }
            return;
        }
        if let Some(shape) = record.shape {
            self.pods.link(id, &mut self.shapes.of_mut(shape).head);
        }
        for address in addresses {
            let others = self.pods.hosts.claim(address, id);
            self.touch_host(address, &others);
        }
    }

    fn witness(&self, key: &model::PodKey, node: crate::ids::Sym) -> Witness {
        let node = self.catalog.symbols.text(node).into();
        Witness::Pod { namespace: key.namespace.clone(), name: key.name.clone(), node }
    }

    /// Other pods may own an address now.
    fn touch_host(&mut self, address: IpAddr, others: &[PodId]) {
        self.dirty.hosts.push(address);
        self.dirty.pods.extend(others.iter().filter(|pod| self.locals.contains_key(pod)));
    }

    pub(crate) fn give_back_shape(&mut self, shape: ShapeId) {
        if let Some(facts) = self.shapes.release(shape, &mut self.catalog.symbols) {
            self.lists.release(facts);
        }
    }
}
