//! Answers to questions, and what is remembered to give them.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::bail;
use serde_json::Value;
use sluice_addr::{Family, Flow};
use sluice_analysis::Judge as FlatJudge;
use sluice_model::{Direction, PodKey};
use sluice_plan::{Cause, LegId, Outcome, Plan};

use super::question::Question;
use super::{Answers, MAX_LINE};
use crate::judge::{self, Judge};
use crate::resolve::{self, End, Placed};

/// Names and texts that a worker remembers before it starts afresh.
const REMEMBERED: usize = 1 << 20;

/// Answers questions, and remembers what it has looked up.
pub(super) struct Worker<'a> {
    placed: &'a Placed,
    plan: &'a Plan,
    flat: FlatJudge<'a>,
    judge: Judge<'a>,
    namespace: &'a str,
    file: &'a str,
    /// How many pods own each address, and the leg texts' first part: the pod's name.
    owners: HashMap<IpAddr, Owner>,
    /// The addresses of Services.
    services: HashSet<IpAddr>,
    ends: Ends,
    /// What follows the pod's name in the text of a leg.
    legs: HashMap<(LegId, Direction, *const Outcome), Box<str>>,
}

/// The pod that owns an address.
struct Owner {
    pod: PodKey,
    /// As it stands inside a JSON string.
    name: Box<str>,
    ingress: LegId,
    egress: LegId,
    contested: bool,
}

impl<'a> Worker<'a> {
    pub(super) fn new(placed: &'a Placed, plan: &'a Plan, namespace: &'a str, file: &'a str) -> Self {
        let mut owners: HashMap<IpAddr, Owner> = HashMap::new();
        for (key, endpoint) in &plan.endpoints {
            for (address, subject) in &endpoint.addresses {
                let name = json_text(&key.to_string());
                let (ingress, egress) = (subject.ingress, subject.egress);
                let owner = Owner { pod: key.clone(), name, ingress, egress, contested: false };
                owners.entry(*address).and_modify(|other| other.contested = true).or_insert(owner);
            }
        }
        Worker {
            placed,
            plan,
            flat: FlatJudge::new(plan),
            judge: Judge::new(placed),
            namespace,
            file,
            owners,
            services: placed.world.services.values().flat_map(|s| s.cluster_ips.iter().copied()).collect(),
            ends: Ends::default(),
            legs: HashMap::new(),
        }
    }

    /// Answers a text of whole lines, of which the first has this number.
    pub(super) fn answers(&mut self, block: &[u8], first_line: u64) -> Answers {
        let mut text = Vec::with_capacity(block.len() * 4);
        for (number, line) in block.split(|b| *b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            if let Err(error) = self.answer(line, &mut text) {
                let place = format!("{}:{}", self.file, first_line + number as u64);
                return Answers { text, error: Some(error.context(place)) };
            }
        }
        Answers { text, error: None }
    }

    fn answer(&mut self, line: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        if line.len() > MAX_LINE {
            bail!("a line of more than {MAX_LINE} bytes");
        }
        let question: Question<'_> = serde_json::from_slice(line)?;
        if self.ends.len() > REMEMBERED || self.legs.len() > REMEMBERED {
            (self.ends, self.legs) = (Ends::default(), HashMap::new());
        }
        let (from, to) = (self.known(&question.from)?, self.known(&question.to)?);
        let asked = question.asked()?;
        let (from, to) = (self.ends.at(from), self.ends.at(to));
        if from.by_law || to.by_law || to.end.service.is_some() {
            let judged = self.judge.judge(&from.end, &to.end, &asked)?;
            let id = question.id.map(Value::from);
            serde_json::to_writer(&mut *out, &judge::answer(id, &judged))?;
            out.push(b'\n');
            return Ok(());
        }
        let mut shown = None;
        'pairs: for source in &from.end.addresses {
            let family = Family::of(*source);
            for destination in to.end.addresses.iter().filter(|d| Family::of(**d) == family) {
                let transport =
                    resolve::transport(family, asked.protocol, asked.port, asked.source_port, asked.icmp)?;
                let flow = Flow { source: *source, destination: *destination, transport };
                let judgement = self.flat.judge(&flow);
                let denied = judgement.verdict == sluice_plan::Verdict::Deny;
                if denied || shown.is_none() {
                    shown = Some((flow, judgement));
                }
                if denied {
                    break 'pairs;
                }
            }
        }
        let Some((flow, judgement)) = shown else {
            bail!("{} and {} have no address of the same family", question.from, question.to);
        };
        out.push(b'{');
        if let Some(id) = &question.id {
            out.extend_from_slice(b"\"id\":");
            id.write(out)?;
            out.push(b',');
        }
        out.extend_from_slice(b"\"verdict\":");
        out.extend_from_slice(verdict(judgement.verdict));
        let ends = [
            (Direction::Egress, flow.source, judgement.egress),
            (Direction::Ingress, flow.destination, judgement.ingress),
        ];
        for (direction, address, outcome) in ends {
            if let Some(outcome) = outcome {
                self.leg(direction, address, outcome, out);
            }
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    /// The end of a name, looked up once.
    fn known(&mut self, name: &str) -> anyhow::Result<usize> {
        if let Some(known) = self.ends.by_name.get(name) {
            return Ok(*known);
        }
        let end = self.end(name)?;
        let contested = |a: &IpAddr| self.owners.get(a).is_some_and(|owner| owner.contested);
        let assumed = |key: &PodKey| self.placed.assumed.contains(key);
        let by_law = !self.placed.world.host_endpoints.is_empty()
            || end.addresses.iter().any(contested)
            || (self.placed.is_split() && end.pods.iter().any(assumed));
        Ok(self.ends.insert(name, KnownEnd { end, by_law }))
    }

    /// An address is found by the index; all other names by looking at the objects.
    fn end(&self, name: &str) -> anyhow::Result<End> {
        let address = sluice_addr::parse_ip(name).ok().filter(|a| !self.services.contains(a));
        let owner = address.and_then(|address| self.owners.get(&address));
        match address {
            Some(address) if owner.is_none_or(|owner| !owner.contested) => Ok(End {
                name: name.to_owned(),
                addresses: vec![address],
                pods: owner.map(|owner| owner.pod.clone()).into_iter().collect(),
                service: None,
            }),
            _ => resolve::end(&self.placed.world, name, self.namespace),
        }
    }

    /// Writes one leg's answer.
    fn leg(&mut self, direction: Direction, address: IpAddr, outcome: &'a Outcome, out: &mut Vec<u8>) {
        let Some(owner) = self.owners.get(&address) else { return };
        let (leg, opening): (LegId, &[u8]) = match direction {
            Direction::Egress => (owner.egress, b",\"egress\":{\"verdict\":"),
            Direction::Ingress => (owner.ingress, b",\"ingress\":{\"verdict\":"),
        };
        out.extend_from_slice(opening);
        out.extend_from_slice(verdict(outcome.verdict));
        out.extend_from_slice(b",\"reason\":\"");
        out.extend_from_slice(match direction {
            Direction::Egress => b"egress of ",
            Direction::Ingress => b"ingress of ",
        });
        out.extend_from_slice(owner.name.as_bytes());
        let plan = self.plan;
        // outcomes live in the plan, which outlives the worker: their place stands for them
        let key = (leg, direction, std::ptr::from_ref(outcome));
        let text = self.legs.entry(key).or_insert_with(|| leg_text(plan, leg, direction, outcome).into());
        out.extend_from_slice(text.as_bytes());
        out.push(b'}');
    }
}

/// What follows the pod's name: the rest of the reason, the rule and where it was written. The sentence is the law's own
/// ([`sluice_model::Leg`]) without the nearest miss, for which `explain` is there.
fn leg_text(plan: &Plan, leg: LegId, direction: Direction, outcome: &Outcome) -> String {
    let tiers = plan.legs.get(&leg).map(|leg| &*leg.tiers).unwrap_or_default();
    let mut reason = match outcome.verdict {
        sluice_plan::Verdict::Allow => ": ALLOW: ".to_owned(),
        sluice_plan::Verdict::Deny => ": DENY: ".to_owned(),
    };
    let mut rest = String::new();
    match &outcome.cause {
        Cause::Rule(rule) => {
            let _ = write!(reason, "{rule}");
            let _ = write!(rest, ",\"rule\":\"{}\"", json_text(&format!("{} {}", rule.object, rule.path)));
            if let Some(position) = &rule.position {
                let _ = write!(rest, ",\"position\":\"{}\"", json_text(&position.to_string()));
            }
        }
        Cause::TierDefault(tier) => {
            let policies = tiers.iter().filter(|stage| stage.tier == *tier).flat_map(|stage| &stage.policies);
            let policies: Vec<String> = policies.map(|policy| policy.object.to_string()).collect();
            let policies = policies.join(", ");
            let _ = write!(reason, "no rule of tier {tier} allows it; the pod is selected by {policies}");
        }
        Cause::Profile(_) if outcome.verdict == sluice_plan::Verdict::Deny => {
            reason.push_str("its namespace is not known");
        }
        Cause::Profile(_) if tiers.is_empty() => {
            let _ = write!(reason, "no policy selects the pod for {direction}");
        }
        Cause::Profile(_) => reason.push_str("no tier decides, so it is allowed"),
        // no pod has a leg with these
        Cause::NoProfile => reason.push_str("no profile allows it"),
        Cause::NextStage => reason.push_str("no rule decides"),
    }
    format!("{}\"{rest}", json_text(&reason))
}

fn verdict(verdict: sluice_plan::Verdict) -> &'static [u8] {
    match verdict {
        sluice_plan::Verdict::Allow => b"\"Allow\"",
        sluice_plan::Verdict::Deny => b"\"Deny\"",
    }
}

/// A text as it stands between the quotes of a JSON string.
fn json_text(text: &str) -> Box<str> {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].into()
}

/// Ends that have been looked up.
#[derive(Default)]
struct Ends {
    by_name: HashMap<Box<str>, usize>,
    ends: Vec<KnownEnd>,
}

struct KnownEnd {
    end: End,
    /// The plan alone does not answer for it.
    by_law: bool,
}

impl Ends {
    fn insert(&mut self, name: &str, end: KnownEnd) -> usize {
        self.ends.push(end);
        self.by_name.insert(name.into(), self.ends.len() - 1);
        self.ends.len() - 1
    }

    fn at(&self, index: usize) -> &KnownEnd {
        &self.ends[index]
    }

    fn len(&self) -> usize {
        self.ends.len()
    }
}

#[cfg(test)]
mod tests {
    use sluice_report::Answer;

    use super::*;
    use crate::input;
    use crate::judge::Asked;

    #[test]
    fn the_words_of_a_verdict_are_those_of_the_report() {
        for (plan, report) in
            [(sluice_plan::Verdict::Allow, Answer::Allow), (sluice_plan::Verdict::Deny, Answer::Deny)]
        {
            assert_eq!(verdict(plan), serde_json::to_vec(&report).expect("JSON"));
        }
    }

    /// The plan and the law give the same verdicts, and the same sentences up to the nearest miss.
    #[test]
    fn answers_are_those_of_the_law() {
        let texts = input::Texts::of(crate::demo::scenario_objects());
        let (input, _) = input::from_texts(&texts, "default", false, None).expect("readable");
        let placed = &input.placed;
        let plan = crate::ask::compile(&placed.world, None);
        let mut worker = Worker::new(placed, &plan, "default", "-");
        let mut law = Judge::new(placed);
        let mut ends: Vec<String> = placed.world.pods.keys().map(ToString::to_string).collect();
        ends.push("203.0.113.10".into());
        let mut compared = 0;
        for (from, to) in ends.iter().flat_map(|f| ends.iter().map(move |t| (f, t))) {
            for port in ["443/TCP", "53/UDP", "ICMP", "47"] {
                let asked = Asked::parse(port).expect("a port");
                let (protocol, number) = (asked.protocol.to_string(), asked.port);
                let line = serde_json::json!({"from": from, "to": to, "protocol": protocol, "port": number});
                let mut out = Vec::new();
                worker.answer(line.to_string().as_bytes(), &mut out).expect("an answer");
                let ours: sluice_report::EvalAnswer = serde_json::from_slice(&out).expect("an answer");
                let end = |text: &str| resolve::end(&placed.world, text, "default").expect("an end");
                let theirs = judge::answer(None, &law.judge(&end(from), &end(to), &asked).expect("judged"));
                assert_eq!(ours.verdict, theirs.verdict, "{line}");
                for (ours, theirs) in [(ours.egress, theirs.egress), (ours.ingress, theirs.ingress)] {
                    assert_eq!(ours.is_some(), theirs.is_some(), "{line}");
                    let (Some(ours), Some(theirs)) = (ours, theirs) else { continue };
                    assert!(theirs.reason.starts_with(&ours.reason), "{}: {}", ours.reason, theirs.reason);
                    assert_eq!(
                        (ours.verdict, ours.rule, ours.position),
                        (theirs.verdict, theirs.rule, theirs.position)
                    );
                    compared += 1;
                }
            }
        }
        assert!(compared > 100, "{compared}");
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(&*json_text("a\"b\\\n"), "a\\\"b\\\\\\n");
    }
}
