//! `sluice reach`: who can reach whom on what.
//!
//! Pods are shown as their workloads, in the words that questions take (`shop/deployment/web`); a workload whose pods are not
//! treated alike stands there in parts, each naming its pods. Outside addresses stand there as ranges.

mod entrances;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;

use anyhow::bail;
use sluice_addr::{AddrRange, AddrSet, Cidr};
use sluice_analysis::{Place, Snapshot};
use sluice_model::{Direction, PodKey, World};
use sluice_plan::ClassId;
use sluice_report::{ReachRow, Reachability};

use self::entrances::CONTROLLER;
use crate::args::{Reach, ReachOutput};
use crate::exit::Exit;
use crate::input::{self, Input};
use crate::render::data::{self, Form};
use crate::render::{picture, reach as rows};
use crate::resolve::{self, End};

/// Runs the command.
pub(crate) fn run(command: &Reach) -> anyhow::Result<Exit> {
    let input = input::read(&command.source)?;
    if let Some(end) = &command.exposure {
        return exposure(&input, end, command);
    }
    let reachability = reachability(&input, command)?;
    let world = &input.placed.world;
    let workload = |name: &str| -> Option<String> {
        if let Some((workload, _)) = name.split_once(" (") {
            return Some(workload.to_owned());
        }
        let (namespace, pod) = name.split_once('/')?;
        let pod = world.pods.get(&PodKey::new(namespace, pod))?;
        Some(as_end(pod.workload.as_deref()?))
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match command.output {
        ReachOutput::Json => data::write(&mut out, Form::Json, &reachability),
        ReachOutput::Yaml => data::write(&mut out, Form::Yaml, &reachability),
        ReachOutput::Csv => rows::comma_separated(&mut out, &reachability),
        ReachOutput::Md => rows::page(&mut out, &reachability),
        ReachOutput::Table => rows::table(&mut out, &reachability),
        ReachOutput::Dot => out.write_all(picture::graph(&reachability, &workload).as_bytes()),
        ReachOutput::Html => {
            rows::document(&mut out, &picture::matrix(&reachability, &workload), &reachability)
        }
        ReachOutput::Svg => out.write_all(picture::matrix(&reachability, &workload).as_bytes()),
    };
    // whoever reads us may stop at any time
    let _ = written.and_then(|()| out.flush());
    Ok(input.exit(Exit::Yes))
}

fn exposure(input: &Input, text: &str, command: &Reach) -> anyhow::Result<Exit> {
    let end = resolve::end(&input.placed.world, text, &command.source.namespace())?;
    if end.pods.is_empty() {
        bail!("{text} is no pod and no workload");
    }
    let snapshot = input.placed.snapshot();
    let exposure = sluice_analysis::exposure(&snapshot, text, &end.pods);
    match command.output {
        ReachOutput::Json => data::print(Form::Json, &exposure),
        ReachOutput::Yaml => data::print(Form::Yaml, &exposure),
        ReachOutput::Table => print!("{}", exposure.text()),
        ReachOutput::Csv | ReachOutput::Md | ReachOutput::Dot | ReachOutput::Svg | ReachOutput::Html => {
            bail!("exposure is shown as table, json or yaml")
        }
    }
    Ok(input.exit(Exit::Yes))
}

fn reachability(input: &Input, command: &Reach) -> anyhow::Result<Reachability> {
    let placed = &input.placed;
    let filter = |text: &Option<String>| -> anyhow::Result<Option<End>> {
        text.as_ref().map(|t| resolve::end(&placed.world, t, &command.source.namespace())).transpose()
    };
    // the controller is no object, but its rows can be asked for
    let asks_controller = command.from.as_deref() == Some(CONTROLLER);
    let from = if asks_controller { None } else { filter(&command.from)? };
    let to = filter(&command.to)?;
    let snapshot = placed.snapshot();
    let mut reachability = Reachability::new(Vec::new());
    if !asks_controller {
        let (sources, targets) = (Side::new(&snapshot, from.as_ref()), Side::new(&snapshot, to.as_ref()));
        let (accepts_from, accepts_to) = (|p: &Place| sources.accepts(p), |p: &Place| targets.accepts(p));
        reachability = match command.pods {
            true => sluice_analysis::reachability(&snapshot, accepts_from, accepts_to),
            false => sluice_analysis::reachability_of_workloads(&snapshot, accepts_from, accepts_to),
        };
        for row in &mut reachability.rows {
            row.from = sources.name(&row.from);
            row.to = targets.name(&row.to);
        }
    }
    mark_undecided(&snapshot, input, &mut reachability.rows);
    if from.is_none() {
        reachability.rows.extend(entrances::entered(input, to.as_ref(), command.pods));
    }
    Ok(reachability)
}

/// `Deployment shop/web (web-1)` as questions name it: `shop/deployment/web (web-1)`. What is no workload is left as it is.
fn as_end(workload: &str) -> String {
    match workload.split_once(' ') {
        Some((kind, rest)) if kind.starts_with(|c: char| c.is_ascii_uppercase()) => {
            let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
            format!("{namespace}/{}/{name}", kind.to_lowercase())
        }
        _ => workload.to_owned(),
    }
}

/// The ends of one side: all, or those that were asked for.
struct Side<'a> {
    snapshot: &'a Snapshot,
    asked: Option<&'a End>,
    /// The addresses that were asked for, if the end is no pod.
    range: Option<AddrSet>,
    /// The classes of the outside addresses that were asked for.
    classes: BTreeSet<ClassId>,
    /// The classes that rows speak of, by the names that the analysis gave them.
    outside: RefCell<BTreeMap<String, ClassId>>,
}

impl<'a> Side<'a> {
    fn new(snapshot: &'a Snapshot, asked: Option<&'a End>) -> Self {
        let cidr = asked.filter(|end| end.pods.is_empty()).and_then(|end| {
            let host = sluice_addr::parse_ip(&end.name).ok().map(Cidr::host);
            host.or_else(|| end.name.parse().ok())
        });
        let addresses = asked.into_iter().flat_map(|end| &end.addresses);
        let plan = snapshot.plan();
        let outside = addresses.filter(|address| is_outside(snapshot, **address));
        Side {
            snapshot,
            asked,
            range: cidr.map(|cidr| AddrSet::from_cidrs([cidr])),
            classes: outside.filter_map(|address| plan.class_of(*address)).collect(),
            outside: RefCell::default(),
        }
    }

    fn accepts(&self, place: &Place) -> bool {
        if place.pod.is_some() || !is_outside(self.snapshot, place.address) {
            return self.asked.is_none_or(|end| end.addresses.contains(&place.address));
        }
        let Some(class) = self.snapshot.plan().class_of(place.address) else { return false };
        let accepted = self.asked.is_none() || self.classes.contains(&class);
        if accepted {
            self.outside.borrow_mut().insert(place.name.clone(), class);
        }
        accepted
    }

    /// What an end is called: the pod that was asked for, a workload, or a range of outside addresses.
    fn name(&self, name: &str) -> String {
        if let Some(class) = self.outside.borrow().get(name) {
            return self.range_name(*class);
        }
        match self.asked.map(|end| end.pods.as_slice()) {
            Some([only]) => only.to_string(),
            _ => as_end(name),
        }
    }

    /// The addresses of a class, as far as they were asked for. A pod or node in a range is not meant.
    fn range_name(&self, class: ClassId) -> String {
        let spans = self.snapshot.plan().spans();
        let all = AddrSet::from_iter(spans.filter(|(_, other)| *other == class).map(|(range, _)| range));
        let meant = match &self.range {
            Some(asked) => all.intersect(asked),
            None => all,
        };
        let texts: Vec<String> = meant.iter().map(range_text).collect();
        format!("outside {}", texts.join(","))
    }
}

fn range_text(range: AddrRange) -> String {
    match range.to_cidrs().as_slice() {
        _ if range.first() == range.last() => range.first().to_string(),
        [only] => only.to_string(),
        _ => format!("{}-{}", range.first(), range.last()),
    }
}

fn is_outside(snapshot: &Snapshot, address: IpAddr) -> bool {
    let plan = snapshot.plan();
    !plan.hosts.contains_key(&address) && !plan.nodes.contains_key(&address)
}

/// Rows whose ends have no address yet hang on CIDRs that name a part of the pod range, if a policy that judges them has
/// one (semantics 1.11).
fn mark_undecided(snapshot: &Snapshot, input: &Input, rows: &mut [ReachRow]) {
    let placed = &input.placed;
    if !placed.is_split() {
        return;
    }
    let members = Members::of(&placed.world);
    // of each end: those of its pods whose addresses are assumed
    let assumed = |name: &str| -> Vec<PodKey> {
        members.pods(name).into_iter().filter(|key| placed.assumed.contains(key)).collect()
    };
    let mut judged: BTreeMap<(String, bool), Option<Cidr>> = BTreeMap::new();
    let mut by = |name: &str, direction: Direction| -> Option<Cidr> {
        let known = judged.entry((name.to_owned(), direction == Direction::Egress));
        *known.or_insert_with(|| {
            members.pods(name).into_iter().find_map(|key| {
                let address = *placed.world.pods.get(&key)?.live_addresses().first()?;
                let place = Place { name: name.to_owned(), address, pod: Some(key) };
                placed.split_of(&snapshot.policies_of(&place, direction))
            })
        })
    };
    for row in rows {
        let ends = [&row.from, &row.to].map(|name| (name.clone(), !assumed(name).is_empty()));
        if !ends.iter().any(|(_, is_assumed)| *is_assumed) {
            continue;
        }
        let cidr = by(&row.from, Direction::Egress).or_else(|| by(&row.to, Direction::Ingress));
        let Some(cidr) = cidr else { continue };
        for (name, _) in ends.iter().filter(|(_, is_assumed)| *is_assumed) {
            row.undecided.push(format!("the address of {name}, because a policy names {cidr}"));
        }
    }
}

/// The pods that the name of a row stands for.
struct Members<'w> {
    world: &'w World,
    of_workload: BTreeMap<String, Vec<PodKey>>,
}

impl<'w> Members<'w> {
    fn of(world: &'w World) -> Self {
        let mut of_workload: BTreeMap<String, Vec<PodKey>> = BTreeMap::new();
        for pod in world.pods.values() {
            let Some(workload) = &pod.workload else { continue };
            of_workload.entry(as_end(workload)).or_default().push(pod.key.clone());
        }
        Members { world, of_workload }
    }

    fn pods(&self, name: &str) -> Vec<PodKey> {
        let Some((namespace, pod)) = name.split_once('/') else { return Vec::new() };
        if let Some((_, part)) = name.strip_suffix(')').and_then(|name| name.split_once(" (")) {
            return part.split(", ").map(|pod| PodKey::new(namespace, pod)).collect();
        }
        match self.of_workload.get(name) {
            Some(pods) => pods.clone(),
            None => Some(PodKey::new(namespace, pod))
                .filter(|key| self.world.pods.contains_key(key))
                .into_iter()
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_named_as_questions_name_them() {
        for (workload, end) in [
            ("Deployment shop/web", "shop/deployment/web"),
            ("StatefulSet a/b (b-0, b-1)", "a/statefulset/b (b-0, b-1)"),
            ("shop/debug", "shop/debug"),
            ("node node-1", "node node-1"),
            ("outside 0.0.0.0/0", "outside 0.0.0.0/0"),
        ] {
            assert_eq!(as_end(workload), end);
        }
    }

    /// Semantics 3.7: a pod of a namespace that does not exist has no profile. Files may leave a Namespace out; a cluster has all.
    #[test]
    fn matrix_and_law_agree_about_a_namespace_that_is_gone() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: gone}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b, namespace: here}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: here}\n";
        for (of_cluster, verdict) in
            [(false, sluice_report::Answer::Allow), (true, sluice_report::Answer::Deny)]
        {
            let (mut input, _) =
                input::from_texts(&input::Texts::of([("t", text)]), "shop", false, None).expect("readable");
            input.placed.namespaces_are_complete = of_cluster;
            let end = |text: &str| resolve::end(&input.placed.world, text, "default").expect("an end");
            let asked = crate::judge::Asked::parse("80/TCP").expect("a port");
            let judged =
                crate::judge::Judge::new(&input.placed).judge(&end("gone/a"), &end("here/b"), &asked);
            assert_eq!(judged.expect("judged").verdict, verdict);
            let snapshot = input.placed.snapshot();
            let rows = sluice_analysis::reachability(&snapshot, |_| true, |_| true).rows;
            let row = rows.iter().find(|row| row.from == "gone/a" && row.to == "here/b").expect("a row");
            assert_eq!(row.allowed.is_empty(), of_cluster, "{row:?}");
        }
    }

    #[test]
    fn the_pods_of_a_row_are_found_by_its_name() {
        let pod = |name: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: s, uid: u, controller: true}}]}}\n"
            )
        };
        let texts = [
            pod("s-0"),
            pod("s-1"),
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\n".into(),
        ];
        let text = texts.join("---\n");
        let (input, _) = input::from_texts(&input::Texts::of([("t", text.as_str())]), "shop", false, None)
            .expect("readable");
        let members = Members::of(&input.placed.world);
        let named = |name: &str| members.pods(name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(named("shop/statefulset/s"), ["shop/s-0", "shop/s-1"]);
        assert_eq!(named("shop/statefulset/s (s-1)"), ["shop/s-1"]);
        assert_eq!(named("shop/p"), ["shop/p"]);
        assert!(named("outside 0.0.0.0/0").is_empty() && named("shop/none").is_empty());
    }
}
