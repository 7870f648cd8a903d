//! What interval maps are called, so that a packet always finds what it looks for.
//!
//! Ranges come and go in a map that is in use, but while a range is replaced by one that overlaps it a packet may find
//! neither. Then the map is made anew beside the old one, under another of its names, and the one rule that looks it up is
//! switched. Which name is in use is read from the table that is held, never remembered.

use std::collections::BTreeSet;

use sluice_netlink::nft::{Expr, Table, changes_in_place};

/// What may follow the name of an interval map: one name is in use, one is new, one may be left from an interrupted change.
const VARIANTS: [&str; 3] = ["", "-b", "-c"];

/// Gives the interval maps of `desired` the names under which `held` can become it while packets pass.
pub fn succeed(held: &Table, desired: &mut Table) {
    let used: BTreeSet<&str> = held
        .chains
        .values()
        .flat_map(|chain| &chain.rules)
        .flat_map(|rule| &rule.exprs)
        .filter_map(Expr::set)
        .collect();
    let maps = desired.sets.iter().filter(|(name, set)| set.flags.interval && stem(name).is_some());
    let maps: Vec<String> = maps.map(|(name, _)| name.clone()).collect();
    for name in maps {
        let Some(stem) = stem(&name) else { continue };
        let names = VARIANTS.map(|variant| format!("{stem}{variant}"));
        let in_use = names.iter().find(|name| used.contains(name.as_str()) && held.sets.contains_key(*name));
        let new = &desired.sets[&name];
        let fits = |name: &&String| {
            let old = &held.sets[name.as_str()];
            old.same_definition(new) && changes_in_place(old, new)
        };
        let free = || names.iter().find(|name| !held.sets.contains_key(*name));
        let unused = || names.iter().find(|name| !used.contains(name.as_str()));
        let chosen = in_use.filter(fits).or_else(free).or_else(unused).unwrap_or(&names[0]);
        rename(desired, stem, &name, chosen);
    }
}

/// The name of an interval map without its variant.
fn stem(name: &str) -> Option<&str> {
    let stem = VARIANTS[1..].iter().find_map(|variant| name.strip_suffix(variant)).unwrap_or(name);
    (stem.ends_with("-net4") || stem.ends_with("-net6")).then_some(stem)
}

fn rename(table: &mut Table, stem: &str, from: &str, to: &str) {
    if from == to {
        return;
    }
    if let Some(set) = table.sets.remove(from) {
        table.sets.insert(to.to_owned(), set);
    }
    // the chain that looks it up has its name from it
    let chain = stem.rsplit_once('-').and_then(|(owner, _)| table.chains.get_mut(owner));
    for expr in chain.into_iter().flat_map(|chain| &mut chain.rules).flat_map(|rule| &mut rule.exprs) {
        expr.rename_set(from, to);
    }
}
