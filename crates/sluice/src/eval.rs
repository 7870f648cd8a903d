//! `sluice eval`: many questions, as JSON lines in and out.
//!
//! ```text
//!   input ──lines──► blocks ──► workers (parse, judge on the plan, write) ──► answers in the order of the questions
//! ```
//!
//! Questions are judged on the compiled plan, which says the same as the law (the test suite compares them). What a leg says is
//! worked out once per leg and outcome. Only where an address is contested or not yet known, or host endpoints have
//! a say, the law itself is asked.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use serde_json::Value;
use sluice_addr::{Family, Flow};
use sluice_analysis::Judge as FlatJudge;
use sluice_model::Direction;
use sluice_plan::{Cause, LegId, Outcome, Plan};
use sluice_report::FlowQuestion;

use crate::args::Eval;
use crate::exit::Exit;
use crate::input;
use crate::judge::{self, Asked, Judge};
use crate::resolve::{self, End, Placed};

/// Longest line of the input, in bytes.
const MAX_LINE: usize = 64 * 1024;
/// Bytes that are read at once; a reader that is slower gets its answers sooner.
const BLOCK: usize = 256 * 1024;
/// Blocks that wait for each worker.
const WAITING: usize = 4;
/// Names and texts that a worker remembers before it starts afresh.
const REMEMBERED: usize = 1 << 20;

/// Whole lines of the input.
struct Block {
    text: Vec<u8>,
    /// The number of its first line.
    first_line: u64,
    answer: SyncSender<Answers>,
}

/// The answers to a block; with an error they end before the line that has it.
struct Answers {
    text: Vec<u8>,
    error: Option<anyhow::Error>,
}

/// Runs the command.
pub(crate) fn run(command: &Eval) -> anyhow::Result<Exit> {
    let input = input::read(&command.source)?;
    let name = command.flows.display().to_string();
    let reader: Box<dyn Read + Send> = if command.flows == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(&command.flows).with_context(|| format!("cannot read {name}"))?)
    };
    let plan = crate::ask::compile(&input.placed.world, None);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let (to_workers, blocks) = sync_channel::<Block>(workers * WAITING);
    let (to_writer, order) = sync_channel::<Receiver<Answers>>(workers * WAITING * 2);
    let blocks = Mutex::new(blocks);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut worker = Worker::new(&input.placed, &plan, &command.source.namespace, &name);
                loop {
                    let next = blocks.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(block) = next else { return };
                    let answers = worker.answers(&block);
                    // nobody waits for it any more once writing has ended
                    let _ = block.answer.send(answers);
                }
            });
        }
        let file = &name;
        let reading = scope.spawn(move || read_blocks(reader, file, &to_workers, &to_writer));
        let written = write_answers(&order);
        drop(order); // the reader ends at its next block
        let read = reading.join().map_err(|_| anyhow::anyhow!("the reader of {name} has failed"))?;
        match (written?, read) {
            (Wrote::Everything, Err(error)) => Err(error),
            (Wrote::Everything | Wrote::ReaderLeft, _) => Ok(input.exit(Exit::Yes)),
        }
    })
}

enum Wrote {
    Everything,
    /// Whoever read our output has closed it.
    ReaderLeft,
}

/// Writes the answers in the order of the blocks.
fn write_answers(order: &Receiver<Receiver<Answers>>) -> anyhow::Result<Wrote> {
    let mut out = std::io::stdout().lock();
    for answers in order {
        let Ok(answers) = answers.recv() else { bail!("a worker has failed") };
        if out.write_all(&answers.text).and_then(|()| out.flush()).is_err() {
            return Ok(Wrote::ReaderLeft);
        }
        if let Some(error) = answers.error {
            return Err(error);
        }
    }
    Ok(Wrote::Everything)
}

/// Cuts the input into blocks of whole lines, as they come.
fn read_blocks(
    mut reader: Box<dyn Read + Send>,
    name: &str,
    workers: &SyncSender<Block>,
    writer: &SyncSender<Receiver<Answers>>,
) -> anyhow::Result<()> {
    let (mut rest, mut line) = (Vec::new(), 1u64);
    loop {
        let mut text = std::mem::take(&mut rest);
        let before = text.len();
        text.resize(before + BLOCK, 0);
        let count = reader.read(&mut text[before..]).with_context(|| format!("cannot read {name}"))?;
        text.truncate(before + count);
        if count > 0 {
            let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
            rest = text.split_off(whole);
            if rest.len() > MAX_LINE {
                let line = line + lines(&text);
                bail!("{name}:{line}: a line of more than {MAX_LINE} bytes");
            }
        }
        if !text.is_empty() {
            let (answer, answers) = sync_channel(1);
            let (count, first_line) = (lines(&text), line);
            if writer.send(answers).is_err() || workers.send(Block { text, first_line, answer }).is_err() {
                return Ok(()); // writing has ended
            }
            line += count;
        }
        if count == 0 {
            return Ok(());
        }
    }
}

fn lines(text: &[u8]) -> u64 {
    text.iter().filter(|b| **b == b'\n').count() as u64
}

/// Answers questions, and remembers what it has looked up.
struct Worker<'a> {
    placed: &'a Placed,
    plan: &'a Plan,
    flat: FlatJudge<'a>,
    judge: Judge<'a>,
    namespace: &'a str,
    file: &'a str,
    /// How many pods own each address, and the leg texts' first part: the pod's name.
    owners: HashMap<IpAddr, Owner>,
    ends: HashMap<String, End>,
    /// What follows the pod's name in the text of a leg.
    legs: HashMap<(LegId, Direction, *const Outcome), Box<str>>,
}

/// The pod that owns an address.
struct Owner {
    /// As it stands inside a JSON string.
    name: Box<str>,
    ingress: LegId,
    egress: LegId,
    contested: bool,
}

impl<'a> Worker<'a> {
    fn new(placed: &'a Placed, plan: &'a Plan, namespace: &'a str, file: &'a str) -> Self {
        let mut owners: HashMap<IpAddr, Owner> = HashMap::new();
        for (key, endpoint) in &plan.endpoints {
            for (address, subject) in &endpoint.addresses {
                let name = json_text(&key.to_string());
                let (ingress, egress) = (subject.ingress, subject.egress);
                let owner = Owner { name, ingress, egress, contested: false };
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
            ends: HashMap::new(),
            legs: HashMap::new(),
        }
    }

    fn answers(&mut self, block: &Block) -> Answers {
        let mut text = Vec::with_capacity(block.text.len() * 4);
        for (number, line) in block.text.split(|b| *b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            if let Err(error) = self.answer(line, &mut text) {
                let place = format!("{}:{}", self.file, block.first_line + number as u64);
                return Answers { text, error: Some(error.context(place)) };
            }
        }
        Answers { text, error: None }
    }

    fn answer(&mut self, line: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        if line.len() > MAX_LINE {
            bail!("a line of more than {MAX_LINE} bytes");
        }
        let question: FlowQuestion = serde_json::from_slice(line)?;
        if self.ends.len() > REMEMBERED || self.legs.len() > REMEMBERED {
            (self.ends, self.legs) = (HashMap::new(), HashMap::new());
        }
        for name in [&question.from, &question.to] {
            if !self.ends.contains_key(name) {
                let end = resolve::end(&self.placed.world, name, self.namespace)?;
                self.ends.insert(name.clone(), end);
            }
        }
        let asked = asked(&question)?;
        let (from, to) = (&self.ends[&question.from], &self.ends[&question.to]);
        let contested =
            |end: &End| end.addresses.iter().any(|a| self.owners.get(a).is_some_and(|o| o.contested));
        let by_law = self.placed.is_split() || !self.placed.world.host_endpoints.is_empty();
        if by_law || to.service.is_some() || contested(from) || contested(to) {
            let judged = self.judge.judge(from, to, &asked)?;
            serde_json::to_writer(&mut *out, &judge::answer(question.id, &judged))?;
            out.push(b'\n');
            return Ok(());
        }
        let mut shown = None;
        'pairs: for source in &from.addresses {
            let family = Family::of(*source);
            for destination in to.addresses.iter().filter(|d| Family::of(**d) == family) {
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
            write_value(id, out)?;
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

fn asked(question: &FlowQuestion) -> anyhow::Result<Asked> {
    let protocol = match question.protocol.as_str() {
        "TCP" => sluice_addr::Protocol::TCP,
        "UDP" => sluice_addr::Protocol::UDP,
        other => resolve::protocol(other)?,
    };
    if question.port.is_some() && !protocol.has_ports() {
        bail!("{protocol} has no ports");
    }
    Ok(Asked {
        protocol,
        port: question.port,
        source_port: question.source_port,
        icmp: (question.type_, question.code),
    })
}

fn verdict(verdict: sluice_plan::Verdict) -> &'static [u8] {
    match verdict {
        sluice_plan::Verdict::Allow => b"\"Allow\"",
        sluice_plan::Verdict::Deny => b"\"Deny\"",
    }
}

fn write_value(value: &Value, out: &mut Vec<u8>) -> anyhow::Result<()> {
    match value {
        Value::Number(number) => write!(out, "{number}")?,
        other => serde_json::to_writer(out, other)?,
    }
    Ok(())
}

/// A text as it stands between the quotes of a JSON string.
fn json_text(text: &str) -> Box<str> {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].into()
}

#[cfg(test)]
mod tests {
    use sluice_report::Verdict;

    use super::*;

    #[test]
    fn the_words_of_a_verdict_are_those_of_the_report() {
        for (plan, report) in
            [(sluice_plan::Verdict::Allow, Verdict::Allow), (sluice_plan::Verdict::Deny, Verdict::Deny)]
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
