//! Programming a transaction into the kernel, and reading a table back.

use std::collections::BTreeMap;

use super::decode::{self, Elements};
use super::encode::{Encoded, encode, family_number, msg};
use super::rule::Rule;
use super::table::{Family, GENERATION_SET, KeyType, Set, SetKey, SetValue, Table, Value};
use super::transaction::{Applied, Refusal, Transaction};
use crate::attr::Writer;
use crate::error::{Errno, Error};
use crate::socket::{Protocol, Socket};

/// How often a read-back starts again because the ruleset changed between its dumps.
const READ_ATTEMPTS: usize = 20;
/// Fewer elements than this come in one piece of a dump.
const ONE_PIECE: usize = 64;

/// Commits a transaction. A batch is all or nothing; [`Error::Refused`] names every object that the kernel refused.
///
/// [`Error::Overrun`] and [`Error::Timeout`] leave open whether the batch was committed: read the table back.
pub fn apply(socket: &mut Socket, transaction: &Transaction) -> Result<Applied, Error> {
    require(socket)?;
    let encoded = encode(transaction)?;
    let batches = encoded.batches(socket.send_limit(), transaction)?;
    if batches.len() > 1 {
        tracing::debug!(batches = batches.len(), "nftables transaction exceeds the send buffer and is split");
    }
    let mut applied = Applied { messages: encoded.messages(), ..Applied::default() };
    for batch in batches {
        let begin = socket.reserve(batch.len() + 2);
        let bytes = encoded.frame(&batch, begin);
        socket.send(&bytes)?;
        let refusals = verdict(socket, transaction, &encoded, &batch, begin)?;
        if !refusals.is_empty() {
            return Err(Error::Refused { refusals, committed: applied.batches });
        }
        applied.batches += 1;
        applied.bytes += bytes.len();
    }
    Ok(applied)
}

/// Reads acks until the kernel's last word on a batch: the ack of its last message, or an error for the batch as a whole.
fn verdict(
    socket: &mut Socket,
    transaction: &Transaction,
    encoded: &Encoded,
    batch: &super::encode::Batch,
    begin: u32,
) -> Result<Vec<Refusal>, Error> {
    let last = begin + batch.len();
    let mut refusals = Vec::new();
    loop {
        for (seq, ack) in socket.receive_acks("nftables transaction")? {
            if !(begin..=last + 1).contains(&seq) {
                continue;
            }
            if let Some(errno) = ack.errno {
                let index = usize::try_from(seq - begin).unwrap_or(usize::MAX);
                // Number 0 is the batch's frame: the commit itself failed.
                let object = match index.checked_sub(1) {
                    Some(index) => encoded.object_in(transaction, batch, index, ack.offset),
                    None => super::transaction::Object::Batch,
                };
                refusals.push(Refusal { object, errno, message: ack.message });
            }
            if seq == last || seq == begin && ack.errno.is_some() {
                return Ok(refusals);
            }
        }
    }
}

/// Reads one table with chains, rules, counters, sets and elements; `None` if it is not there. Other tables are ignored.
///
/// The result is of one generation of the ruleset: if it changes in between, reading starts again.
pub fn read_table(socket: &mut Socket, family: Family, name: &str) -> Result<Option<Table>, Error> {
    require(socket)?;
    'attempt: for _ in 0..READ_ATTEMPTS {
        match get_table(socket, family, name) {
            Ok(()) => {}
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut generations = Vec::new();
        let chains =
            read(socket, family, name, None, msg::GETCHAIN, msg::NEWCHAIN, &mut generations, decode::chain)?;
        let rules =
            read(socket, family, name, None, msg::GETRULE, msg::NEWRULE, &mut generations, decode::rule)?;
        let sets = read(socket, family, name, None, msg::GETSET, msg::NEWSET, &mut generations, decode::set)?;
        let mut table = Table::new(family, name);
        table.chains = chains.into_iter().collect();
        for (chain, rule) in rules {
            match table.chains.get_mut(&chain) {
                Some(chain) => chain.rules.push(rule),
                None => continue 'attempt,
            }
        }
        for (name_of, mut set) in sets {
            let unknown = matches!(set.key[..], [KeyType::Unknown(_)]);
            if !unknown {
                match read_settled(socket, family, name, &name_of, &set, &mut generations) {
                    Ok(elements) => set.elements = elements,
                    Err(error) if error.is_not_found() => continue 'attempt,
                    Err(error) => return Err(error),
                }
            }
            table.sets.insert(name_of, set);
        }
        generations.dedup();
        if generations.len() > 1 {
            continue;
        }
        if let Some(set) = table.sets.remove(GENERATION_SET) {
            match generation_of(&set) {
                Some(generation) => table.generation = generation,
                None => {
                    table.sets.insert(GENERATION_SET.to_owned(), set);
                }
            }
        }
        return Ok(Some(table));
    }
    Err(Error::Interrupted { operation: format!("read table {name}") })
}

/// Reads the rules of one chain, or of all chains of a table, with counters and handles; empty if there are none.
pub fn read_rules(
    socket: &mut Socket,
    family: Family,
    table: &str,
    chain: Option<&str>,
) -> Result<BTreeMap<String, Vec<Rule>>, Error> {
    require(socket)?;
    let rules =
        read(socket, family, table, chain, msg::GETRULE, msg::NEWRULE, &mut Vec::new(), decode::rule)?;
    let mut by_chain: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
    for (name, rule) in rules {
        if chain.is_none_or(|wanted| wanted == name) {
            by_chain.entry(name).or_default().push(rule);
        }
    }
    Ok(by_chain)
}

/// The generation that the elements of [`GENERATION_SET`] say; `None` if the set is not ours.
fn generation_of(set: &Set) -> Option<Option<u64>> {
    if !set.same_definition(&super::diff::generation_set()) {
        return None;
    }
    match set.elements.keys().collect::<Vec<_>>()[..] {
        [] => Some(None),
        [SetKey::Exact(parts)] => match parts[..] {
            [Value::U32(high), Value::U32(low)] => Some(Some(u64::from(high) << 32 | u64::from(low))),
            _ => None,
        },
        _ => None,
    }
}

fn require(socket: &Socket) -> Result<(), Error> {
    socket.require(Protocol::Netfilter, "nftables")
}

fn get_table(socket: &mut Socket, family: Family, name: &str) -> Result<(), Error> {
    let mut w = Writer::default();
    w.nfgen(family_number(family), 0);
    w.text(1, name);
    socket.request(&format!("get table {name}"), msg::GETTABLE, 0, w.bytes(), |_, _| {})
}

/// Dumps the objects of one kind and table.
#[expect(clippy::too_many_arguments, reason = "one private function in place of three")]
fn read<T>(
    socket: &mut Socket,
    family: Family,
    table: &str,
    chain: Option<&str>,
    ask: u16,
    answer: u16,
    generations: &mut Vec<u16>,
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, Error> {
    let mut w = Writer::default();
    w.nfgen(family_number(family), 0);
    // Rules and sets are filtered by the kernel, chains (whose dump takes no filter) here.
    if ask != msg::GETCHAIN {
        w.text(1, table);
        if let Some(chain) = chain {
            w.text(2, chain);
        }
    }
    let mut found: (Vec<T>, Vec<u16>) = Default::default();
    let operation = format!("read table {table}");
    let result = socket.dump(
        &operation,
        ask,
        w.bytes(),
        &mut found,
        |found| *found = Default::default(),
        |found, kind, message| {
            if kind != answer {
                return;
            }
            if let Some((_, generation)) = decode::nfgen(message) {
                found.1.push(generation);
            }
            if decode::table_of(message).as_deref() == Some(table)
                && decode::nfgen(message).is_some_and(|(f, _)| f == family_number(family))
            {
                found.0.extend(decode(message));
            }
        },
    );
    match result {
        Ok(()) => {}
        // A filter that matches nothing.
        Err(Error::NotFound { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    found.1.dedup();
    generations.append(&mut found.1);
    Ok(found.0)
}

/// Reads the elements of a set until two reads in a row agree.
///
/// The kernel dumps a hash set in pieces and goes on by counting; while the hash table is resized in the background, which goes on for
/// some milliseconds after many elements were added, a piece can leave elements out without any sign of it.
fn read_settled(
    socket: &mut Socket,
    family: Family,
    table: &str,
    name: &str,
    set: &Set,
    generations: &mut Vec<u16>,
) -> Result<BTreeMap<SetKey, SetValue>, Error> {
    let mut before = read_elements(socket, family, table, name, set, generations)?.finish(set);
    if set.flags.interval || before.len() < ONE_PIECE {
        return Ok(before);
    }
    for _ in 0..READ_ATTEMPTS {
        let again = read_elements(socket, family, table, name, set, generations)?.finish(set);
        if again == before {
            return Ok(again);
        }
        before = again;
    }
    Err(Error::Interrupted { operation: format!("read set {name}") })
}

fn read_elements(
    socket: &mut Socket,
    family: Family,
    table: &str,
    name: &str,
    set: &Set,
    generations: &mut Vec<u16>,
) -> Result<Elements, Error> {
    let mut w = Writer::default();
    w.nfgen(family_number(family), 0);
    w.text(1, table);
    w.text(2, name);
    let mut found: (Elements, Vec<u16>) = Default::default();
    socket.dump(
        &format!("read set {name}"),
        msg::GETSETELEM,
        w.bytes(),
        &mut found,
        |found| *found = Default::default(),
        |(elements, generations), kind, message| {
            if kind == msg::NEWSETELEM {
                generations.extend(decode::nfgen(message).map(|(_, generation)| generation));
                elements.add(set, message);
            }
        },
    )?;
    found.1.dedup();
    generations.append(&mut found.1);
    Ok(found.0)
}

/// Reads one set with its elements; [`Error::NotFound`] if table or set is not there.
pub fn read_set(socket: &mut Socket, family: Family, table: &str, name: &str) -> Result<Set, Error> {
    require(socket)?;
    let mut w = Writer::default();
    w.nfgen(family_number(family), 0);
    w.text(1, table);
    w.text(2, name);
    let mut found = None;
    let operation = format!("read set {name}");
    socket.request(&operation, msg::GETSET, 0, w.bytes(), |kind, message| {
        if kind == msg::NEWSET {
            found = decode::set(message);
        }
    })?;
    let (_, mut set) = found.ok_or_else(|| Error::from_kernel(&operation, Errno::NOENT, None))?;
    set.elements = read_settled(socket, family, table, name, &set, &mut Vec::new())?;
    Ok(set)
}
