//! Changes to netlink messages, and their packing into batches.

use std::ops::Range;

use super::lower::lower;
use super::name::check_name;
use super::raw::{write_value, write_verdict};
use super::rule::Rule;
use super::table::{ChainKind, Family, Hook, HookPoint, Policy, Set, SetData, SetKey, SetValue, Value};
use super::transaction::{Change, Object, RuleDeletion, Transaction};
use super::user_data::{comment_user_data, set_user_data};
use super::value::{concat_bytes, concat_len, concat_number, successor};
use crate::attr::{HEADER_LEN, Writer, attrs, flag};
use crate::error::Error;

pub(crate) const NFPROTO_INET: u8 = 1;

/// Message types of nf_tables with the subsystem's number.
pub(crate) mod msg {
    const NFTABLES: u16 = 10 << 8;
    pub(crate) const NEWTABLE: u16 = NFTABLES;
    pub(crate) const GETTABLE: u16 = NFTABLES | 1;
    pub(crate) const DELTABLE: u16 = NFTABLES | 2;
    pub(crate) const NEWCHAIN: u16 = NFTABLES | 3;
    pub(crate) const GETCHAIN: u16 = NFTABLES | 4;
    pub(crate) const DELCHAIN: u16 = NFTABLES | 5;
    pub(crate) const NEWRULE: u16 = NFTABLES | 6;
    pub(crate) const GETRULE: u16 = NFTABLES | 7;
    pub(crate) const DELRULE: u16 = NFTABLES | 8;
    pub(crate) const NEWSET: u16 = NFTABLES | 9;
    pub(crate) const GETSET: u16 = NFTABLES | 10;
    pub(crate) const DELSET: u16 = NFTABLES | 11;
    pub(crate) const NEWSETELEM: u16 = NFTABLES | 12;
    pub(crate) const GETSETELEM: u16 = NFTABLES | 13;
    pub(crate) const DELSETELEM: u16 = NFTABLES | 14;
    pub(crate) const BATCH_BEGIN: u16 = 16;
    pub(crate) const BATCH_END: u16 = 17;
}

/// `NFT_SET_*`.
pub(crate) mod set_flag {
    pub(crate) const ANONYMOUS: u32 = 1;
    pub(crate) const CONSTANT: u32 = 2;
    pub(crate) const INTERVAL: u32 = 4;
    pub(crate) const MAP: u32 = 8;
    pub(crate) const TIMEOUT: u32 = 16;
}

pub(crate) const VERDICT_TYPE: u32 = 0xffff_ff00;
pub(crate) const INTERVAL_END: u32 = 1;
/// `NFNL_SUBSYS_NFTABLES`, the resource of a batch.
const SUBSYSTEM: u16 = 10;
/// Elements per message are bounded so that the nested list stays below 64 KiB.
const ELEMENT_LIST_BYTES: usize = 32 * 1024;
/// 64 bytes of registers, 4 per part.
const MAX_PARTS: usize = 16;
/// `NFT_RULE_MAXEXPRS`.
const MAX_EXPRS: usize = 128;

/// The kernel's number of a table family.
pub(crate) fn family_number(family: Family) -> u8 {
    match family {
        Family::Inet => NFPROTO_INET,
        Family::Ip => 2,
        Family::Ip6 => 10,
    }
}

/// The messages of a transaction, in order.
#[derive(Debug)]
pub(crate) struct Encoded {
    bytes: Vec<u8>,
    messages: Vec<Piece>,
}

/// One message and what it is about.
#[derive(Debug)]
struct Piece {
    bytes: Range<usize>,
    change: usize,
    part: Part,
    /// Whether a batch may begin with this message.
    divisible: bool,
}

#[derive(Clone, Debug)]
enum Part {
    Whole,
    OldRules,
    Rule(usize),
    Removed(Range<usize>),
    Added(Range<usize>),
}

/// One batch, ready to send but for sequence numbers.
#[derive(Debug)]
pub(crate) struct Batch {
    messages: Range<usize>,
}

impl Encoded {
    pub(crate) fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Splits the messages into batches of at most `limit` bytes.
    pub(crate) fn batches(&self, limit: usize, transaction: &Transaction) -> Result<Vec<Batch>, Error> {
        const FRAME: usize = 2 * (HEADER_LEN + 4);
        let mut batches = Vec::new();
        let (mut start, mut last_cut) = (0, 0);
        let size = |from: usize, to: usize| match self.messages.get(from..to) {
            Some([first, .., last]) => last.bytes.end - first.bytes.start,
            Some([one]) => one.bytes.len(),
            _ => 0,
        };
        for (at, piece) in self.messages.iter().enumerate() {
            if piece.divisible {
                last_cut = at;
            }
            if size(start, at + 1) + FRAME > limit {
                if last_cut == start {
                    return Err(Error::TooLarge {
                        object: self.object(transaction, at, None).to_string(),
                        bytes: size(start, at + 1) + FRAME,
                        limit,
                    });
                }
                batches.push(Batch { messages: start..last_cut });
                start = last_cut;
                if size(start, at + 1) + FRAME > limit {
                    return Err(Error::TooLarge {
                        object: self.object(transaction, at, None).to_string(),
                        bytes: size(start, at + 1) + FRAME,
                        limit,
                    });
                }
            }
        }
        if start < self.messages.len() {
            batches.push(Batch { messages: start..self.messages.len() });
        }
        Ok(batches)
    }

    /// The bytes of a batch whose messages are numbered from `seq` (the begin message) on; the last one asks for an ack.
    pub(crate) fn frame(&self, batch: &Batch, seq: u32) -> Vec<u8> {
        let mut w = Writer::default();
        w.message(msg::BATCH_BEGIN, flag::REQUEST, seq, |w| w.nfgen(0, SUBSYSTEM));
        let mut number = seq;
        for piece in &self.messages[batch.messages.clone()] {
            number += 1;
            let at = w.len();
            w.raw(&self.bytes[piece.bytes.clone()]);
            w.patch(at + 8, &number.to_ne_bytes());
            if number == seq + batch.len() {
                let flags = u16::from_ne_bytes([w.bytes()[at + 6], w.bytes()[at + 7]]) | flag::ACK;
                w.patch(at + 6, &flags.to_ne_bytes());
            }
        }
        w.message(msg::BATCH_END, flag::REQUEST, number + 1, |w| w.nfgen(0, SUBSYSTEM));
        w.into_bytes()
    }

    /// What message `index` of a batch is about; `offset` is where in the message the kernel saw the fault.
    pub(crate) fn object_in(
        &self,
        transaction: &Transaction,
        batch: &Batch,
        index: usize,
        offset: Option<usize>,
    ) -> Object {
        match batch.messages.clone().nth(index) {
            Some(at) => self.object(transaction, at, offset),
            None => Object::Batch,
        }
    }

    fn object(&self, transaction: &Transaction, at: usize, offset: Option<usize>) -> Object {
        let piece = &self.messages[at];
        match (&transaction.changes[piece.change], &piece.part) {
            (Change::AddTable | Change::DeleteTable, _) => Object::Table,
            (Change::AddChain { chain, .. } | Change::DeleteChain { chain }, _) => {
                Object::Chain(chain.clone())
            }
            (Change::AddSet { set, .. } | Change::DeleteSet { set }, _) => Object::Set(set.clone()),
            (Change::Rules { chain, .. }, Part::Rule(index)) => Object::Rule(chain.clone(), *index),
            (Change::Rules { chain, .. }, _) => Object::OldRules(chain.clone()),
            (Change::Elements { set, remove, add }, part) => {
                let keys: Vec<&SetKey> = match part {
                    Part::Removed(range) => remove[range.clone()].iter().collect(),
                    Part::Added(range) => add[range.clone()].iter().map(|(key, _)| key).collect(),
                    _ => Vec::new(),
                };
                let key = match (&keys[..], offset) {
                    ([one], _) => Some((*one).clone()),
                    (_, Some(offset)) => element_at(&self.bytes[piece.bytes.clone()], offset)
                        .and_then(|index| key_of_list_entry(&keys, index)),
                    _ => None,
                };
                Object::Element(set.clone(), key)
            }
        }
    }
}

impl Batch {
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.messages.len()).expect("a batch fits a socket buffer")
    }
}

/// The index of the list entry of an element message that an offset lies in.
fn element_at(message: &[u8], offset: usize) -> Option<usize> {
    let body = HEADER_LEN + 4;
    let base = message.as_ptr() as usize;
    let list = attrs(message.get(body..)?).find(3)?;
    attrs(list).position(|(_, elem)| {
        let end = elem.as_ptr() as usize - base + elem.len();
        offset < end
    })
}

/// Interval elements take two list entries unless they end with the address space.
fn key_of_list_entry(keys: &[&SetKey], index: usize) -> Option<SetKey> {
    let mut entry = 0;
    for key in keys {
        entry += match key {
            SetKey::Range(_, last) if successor(last).is_some() => 2,
            _ => 1,
        };
        if index < entry {
            return Some((*key).clone());
        }
    }
    None
}

/// Encodes all changes, checking each against what the kernel and `nft` accept.
pub(crate) fn encode(transaction: &Transaction) -> Result<Encoded, Error> {
    let name = |kind: &str, name: &str| {
        check_name(name).map_err(|reason| Error::Invalid {
            object: format!("{kind} {name:?}"),
            reason: reason.to_owned(),
        })
    };
    name("table", &transaction.table)?;
    let mut e = Encoder {
        family: transaction.family,
        table: &transaction.table,
        writer: Writer::default(),
        messages: Vec::new(),
        change: 0,
        set_id: 0,
    };
    for (index, change) in transaction.changes.iter().enumerate() {
        e.change = index;
        match change {
            Change::AddTable => e.push(msg::NEWTABLE, flag::CREATE, Part::Whole, true, |w, table| {
                w.text(1, table);
                w.be32(2, 0);
            }),
            Change::DeleteTable => e.push(msg::DELTABLE, 0, Part::Whole, true, |w, table| w.text(1, table)),
            Change::AddChain { chain, base } => {
                name("chain", chain)?;
                e.chain(chain, base.as_ref());
            }
            Change::DeleteChain { chain } => {
                name("chain", chain)?;
                e.push(msg::DELCHAIN, 0, Part::Whole, true, |w, table| {
                    w.text(1, table);
                    w.text(3, chain);
                });
            }
            Change::AddSet { set, definition } => {
                name("set", set)?;
                definition.check(set)?;
                e.set(set, definition);
            }
            Change::DeleteSet { set } => {
                name("set", set)?;
                e.push(msg::DELSET, 0, Part::Whole, true, |w, table| {
                    w.text(1, table);
                    w.text(2, set);
                });
            }
            Change::Elements { set, remove, add } => {
                name("set", set)?;
                e.elements(set, remove, add)?;
            }
            Change::Rules { chain, delete, before, add } => {
                name("chain", chain)?;
                e.rules(chain, delete, *before, add)?;
            }
        }
    }
    Ok(Encoded { bytes: e.writer.into_bytes(), messages: e.messages })
}

struct Encoder<'a> {
    family: Family,
    table: &'a str,
    writer: Writer,
    messages: Vec<Piece>,
    change: usize,
    set_id: u32,
}

impl Encoder<'_> {
    fn push(
        &mut self,
        kind: u16,
        flags: u16,
        part: Part,
        divisible: bool,
        body: impl FnOnce(&mut Writer, &str),
    ) {
        let start = self.writer.len();
        let (family, table) = (family_number(self.family), self.table);
        self.writer.message(kind, flag::REQUEST | flags, 0, |w| {
            w.nfgen(family, 0);
            body(w, table);
        });
        self.messages.push(Piece { bytes: start..self.writer.len(), change: self.change, part, divisible });
    }

    fn chain(&mut self, chain: &str, base: Option<&Hook>) {
        self.push(msg::NEWCHAIN, flag::CREATE, Part::Whole, true, |w, table| {
            w.text(1, table);
            w.text(3, chain);
            if let Some(base) = base {
                w.nest(4, |w| {
                    w.be32(1, hook_number(base.hook));
                    w.be32(2, base.priority as u32);
                });
                w.be32(5, policy_number(base.policy));
                w.text(7, kind_name(base.kind));
            }
        });
    }

    fn set(&mut self, name: &str, set: &Set) {
        self.set_id += 1;
        let id = self.set_id;
        self.push(msg::NEWSET, flag::CREATE, Part::Whole, true, |w, table| {
            w.text(1, table);
            w.text(2, name);
            w.be32(3, set_flags(set));
            w.be32(4, concat_number(&set.key));
            w.be32(5, concat_len(&set.key) as u32);
            match &set.data {
                SetData::None => {}
                SetData::Verdict => {
                    w.be32(6, VERDICT_TYPE);
                    w.be32(7, 0);
                }
                SetData::Values(types) => {
                    w.be32(6, concat_number(types));
                    w.be32(7, concat_len(types) as u32);
                }
            }
            w.be32(10, id);
            w.attr(13, &set_user_data(set));
        });
    }

    fn elements(&mut self, set: &str, remove: &[SetKey], add: &[(SetKey, SetValue)]) -> Result<(), Error> {
        let object = || format!("elements of set {set}");
        for value in add.iter().map(|(_, value)| value) {
            if let SetValue::Verdict(verdict) = value
                && let Some(Err(reason)) = verdict.target().map(check_name)
            {
                return Err(Error::Invalid { object: object(), reason: reason.to_owned() });
            }
        }
        let long = |key: &SetKey| matches!(key, SetKey::Exact(parts) if parts.len() > MAX_PARTS);
        let long_value =
            |value: &SetValue| matches!(value, SetValue::Values(values) if values.len() > MAX_PARTS);
        if remove.iter().any(long) || add.iter().any(|(key, value)| long(key) || long_value(value)) {
            return Err(Error::Invalid { object: object(), reason: format!("more than {MAX_PARTS} parts") });
        }
        let mut divisible = true;
        let removed = chunks(remove.iter().map(|key| element_size(key, &SetValue::None)));
        for range in removed {
            let keys = &remove[range.clone()];
            self.push(msg::DELSETELEM, 0, Part::Removed(range), divisible, |w, table| {
                w.text(1, table);
                w.text(2, set);
                w.nest(3, |w| keys.iter().for_each(|key| write_element(w, key, &SetValue::None)));
            });
            divisible = add.is_empty();
        }
        for range in chunks(add.iter().map(|(key, value)| element_size(key, value))) {
            let elements = &add[range.clone()];
            self.push(msg::NEWSETELEM, flag::CREATE, Part::Added(range), divisible, |w, table| {
                w.text(1, table);
                w.text(2, set);
                w.nest(3, |w| elements.iter().for_each(|(key, value)| write_element(w, key, value)));
            });
            divisible = remove.is_empty();
        }
        Ok(())
    }

    fn rules(
        &mut self,
        chain: &str,
        delete: &RuleDeletion,
        before: Option<u64>,
        add: &[Rule],
    ) -> Result<(), Error> {
        let mut divisible = true;
        let handles: Vec<Option<u64>> = match delete {
            RuleDeletion::Nothing => Vec::new(),
            RuleDeletion::All => vec![None],
            RuleDeletion::Handles(handles) => handles.iter().copied().map(Some).collect(),
        };
        for handle in handles {
            self.push(msg::DELRULE, 0, Part::OldRules, divisible, |w, table| {
                w.text(1, table);
                w.text(2, chain);
                if let Some(handle) = handle {
                    w.be64(3, handle);
                }
            });
            divisible = false;
        }
        for (index, rule) in add.iter().enumerate() {
            let object = || format!("rule {index} of chain {chain}");
            let raws =
                lower(rule, self.family).map_err(|reason| Error::Invalid { object: object(), reason })?;
            if raws.len() > MAX_EXPRS {
                let reason = format!("{} kernel expressions, the kernel takes {MAX_EXPRS}", raws.len());
                return Err(Error::Invalid { object: object(), reason });
            }
            // With a position and without APPEND a rule is put in front of the one named.
            let flags = if before.is_some() { flag::CREATE } else { flag::CREATE | flag::APPEND };
            self.push(msg::NEWRULE, flags, Part::Rule(index), divisible, |w, table| {
                w.text(1, table);
                w.text(2, chain);
                w.nest(4, |w| raws.iter().for_each(|raw| raw.write(w)));
                if let Some(before) = before {
                    w.be64(6, before);
                }
                if let Some(comment) = &rule.comment {
                    w.attr(7, &comment_user_data(comment));
                }
            });
            divisible = false;
        }
        Ok(())
    }
}

/// Groups elements by size into lists that fit one message.
fn chunks(sizes: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let (mut out, mut start, mut sum, mut end) = (Vec::new(), 0, 0, 0);
    for (at, size) in sizes.enumerate() {
        if sum + size > ELEMENT_LIST_BYTES && at > start {
            out.push(start..at);
            (start, sum) = (at, 0);
        }
        sum += size;
        end = at + 1;
    }
    if end > start {
        out.push(start..end);
    }
    out
}

/// An upper bound of an element's bytes in a message.
fn element_size(key: &SetKey, value: &SetValue) -> usize {
    let key = match key {
        SetKey::Exact(parts) => 16 + 16 * parts.len(),
        SetKey::Range(..) => 72,
    };
    key + match value {
        SetValue::None => 0,
        SetValue::Verdict(verdict) => 32 + verdict.target().map_or(0, |chain| chain.len() + 4),
        SetValue::Values(values) => 16 + 16 * values.len(),
    }
}

fn write_element(w: &mut Writer, key: &SetKey, value: &SetValue) {
    let mut entry = |key: &[Value], value: &SetValue, flags: u32| {
        w.nest(1, |w| {
            write_value(w, 1, &concat_bytes(key));
            match value {
                SetValue::None => {}
                SetValue::Verdict(verdict) => write_verdict(w, 2, verdict),
                SetValue::Values(values) => write_value(w, 2, &concat_bytes(values)),
            }
            if flags != 0 {
                w.be32(3, flags);
            }
        });
    };
    match key {
        SetKey::Exact(parts) => entry(parts, value, 0),
        SetKey::Range(first, last) => {
            entry(std::slice::from_ref(first), value, 0);
            // The end is the first value that is no longer inside; the last range of the space has none.
            if let Some(end) = successor(last) {
                entry(&[end], &SetValue::None, INTERVAL_END);
            }
        }
    }
}

fn set_flags(set: &Set) -> u32 {
    let mut flags = 0;
    for (on, bit) in [
        (set.flags.constant, set_flag::CONSTANT),
        (set.flags.interval, set_flag::INTERVAL),
        (set.data != SetData::None, set_flag::MAP),
        (set.flags.timeout, set_flag::TIMEOUT),
    ] {
        flags |= u32::from(on) * bit;
    }
    flags
}

fn hook_number(hook: HookPoint) -> u32 {
    match hook {
        HookPoint::Prerouting => 0,
        HookPoint::Input => 1,
        HookPoint::Forward => 2,
        HookPoint::Output => 3,
        HookPoint::Postrouting => 4,
    }
}

fn policy_number(policy: Policy) -> u32 {
    match policy {
        Policy::Drop => 0,
        Policy::Accept => 1,
    }
}

/// The kernel's name of a chain type, the same as nft's.
pub(crate) fn kind_name(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
        ChainKind::Route => "route",
    }
}
