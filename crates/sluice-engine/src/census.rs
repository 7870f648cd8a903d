//! How many things the engine keeps, so that tests see what is never given back.

use std::collections::BTreeMap;

use crate::core::Core;

impl Core {
    /// How many things of each kind are kept.
    pub(crate) fn census(&self) -> BTreeMap<&'static str, usize> {
        let places = self.places.census();
        BTreeMap::from([
            ("strings", self.catalog.symbols.len()),
            ("queries", self.catalog.queries.len()),
            ("criteria", self.catalog.criteria.len()),
            ("queries that subjects are looked up by", self.subject_index.len()),
            ("queries that peers are looked up by", self.peer_index.len()),
            ("fact lists", self.lists.len()),
            ("port maps", self.ports.len()),
            ("sources", places[0]),
            ("source lists", places[1]),
            ("parts of the address space", places[2]),
            ("shapes", self.shapes.len()),
            ("sets and host endpoints", self.holders.slab.len()),
            ("local pods", self.locals.len()),
            ("local shapes", self.local_shapes.len()),
            ("policies", self.policies.slab.len()),
            ("roles", self.roles.len()),
            ("classes", self.classes.len()),
            ("legs", self.legs.len()),
            ("functions", self.functions.len()),
            ("contested addresses", self.contested.len()),
        ])
    }
}
