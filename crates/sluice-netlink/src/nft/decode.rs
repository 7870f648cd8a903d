//! Netlink messages back to chains, rules, sets and elements. Nothing here trusts the bytes.

use std::collections::BTreeMap;

use super::encode::{INTERVAL_END, VERDICT_TYPE, kind_name, set_flag};
use super::lift::lift;
use super::raw::{Raw, read_value, read_verdict};
use super::rule::Rule;
use super::table::{
    Chain, ChainKind, Hook, HookPoint, KeyType, Policy, Set, SetData, SetFlags, SetKey, SetValue, Value,
};
use super::user_data::comment_of;
use super::value::{concat_types, concat_values, last_value, predecessor};
use crate::attr::{self, attrs};

/// The attributes of an nf_tables message, after its `nfgenmsg`.
fn body(message: &[u8]) -> Option<attr::Attrs<'_>> {
    message.get(4..).map(attrs)
}

/// `nfgenmsg`: family, and the low bits of the ruleset's generation.
pub(crate) fn nfgen(message: &[u8]) -> Option<(u8, u16)> {
    let [family, _, high, low] = *message.first_chunk()?;
    Some((family, u16::from_be_bytes([high, low])))
}

/// The table that a chain, rule, set or element message belongs to: attribute 1 in all of them.
pub(crate) fn table_of(message: &[u8]) -> Option<String> {
    body(message)?.find(1).map(attr::text)
}

/// A chain without its rules.
pub(crate) fn chain(message: &[u8]) -> Option<(String, Chain)> {
    let attrs_of = body(message)?;
    let name = attr::text(attrs_of.find(3)?);
    let base = attrs_of.find(4).and_then(|hook| {
        let hook = attrs(hook);
        Some(Hook {
            hook: match attr::be32(hook.find(1)?)? {
                0 => HookPoint::Prerouting,
                1 => HookPoint::Input,
                2 => HookPoint::Forward,
                3 => HookPoint::Output,
                4 => HookPoint::Postrouting,
                _ => return None,
            },
            kind: {
                let kind = attr::text(attrs_of.find(7)?);
                [ChainKind::Filter, ChainKind::Nat, ChainKind::Route]
                    .into_iter()
                    .find(|k| kind_name(*k) == kind)?
            },
            priority: attr::be32(hook.find(2)?)? as i32,
            policy: match attrs_of.find(5).and_then(attr::be32) {
                Some(0) => Policy::Drop,
                _ => Policy::Accept,
            },
        })
    });
    Some((name, Chain { base, rules: Vec::new() }))
}

/// A rule and its chain.
pub(crate) fn rule(message: &[u8]) -> Option<(String, Rule)> {
    let attrs_of = body(message)?;
    let chain = attr::text(attrs_of.find(2)?);
    let raws: Vec<Raw> = attrs(attrs_of.find(4).unwrap_or_default())
        .filter(|(kind, _)| *kind == 1)
        .map(|(_, e)| Raw::read(e))
        .collect();
    let (exprs, counter) = lift(&raws);
    let comment = attrs_of.find(7).and_then(comment_of);
    let handle = attrs_of.find(3).and_then(attr::be);
    Some((chain, Rule { exprs, comment, counter, handle }))
}

/// A set without its elements; `None` for anonymous sets, which live and die with their rule.
pub(crate) fn set(message: &[u8]) -> Option<(String, Set)> {
    let attrs_of = body(message)?;
    let number = |kind| attrs_of.find(kind).and_then(attr::be32);
    let name = attr::text(attrs_of.find(2)?);
    let flags = number(3).unwrap_or(0);
    if flags & set_flag::ANONYMOUS != 0 {
        return None;
    }
    let data = match number(6) {
        _ if flags & set_flag::MAP == 0 => SetData::None,
        Some(VERDICT_TYPE) => SetData::Verdict,
        number => SetData::Values(concat_types(number.unwrap_or(0))),
    };
    let known = set_flag::CONSTANT | set_flag::INTERVAL | set_flag::MAP | set_flag::TIMEOUT;
    let key_number = number(4).unwrap_or(0);
    // A set of a kind that this crate never makes (e.g. pipapo, dynamic) must not pass for one of ours.
    let key = if flags & !known == 0 { concat_types(key_number) } else { vec![KeyType::Unknown(key_number)] };
    let flags = SetFlags {
        interval: flags & set_flag::INTERVAL != 0,
        constant: flags & set_flag::CONSTANT != 0,
        timeout: flags & set_flag::TIMEOUT != 0,
    };
    Some((name, Set { key, data, flags, elements: BTreeMap::new() }))
}

/// Collects the elements of one set over all messages of its dump.
#[derive(Debug, Default)]
pub(crate) struct Elements {
    exact: BTreeMap<SetKey, SetValue>,
    /// Borders of an interval set; at one key an end sorts before a start.
    borders: BTreeMap<(Value, bool), SetValue>,
}

impl Elements {
    /// Takes the elements of one message of a set with this definition.
    pub(crate) fn add(&mut self, set: &Set, message: &[u8]) {
        let Some(list) = body(message).and_then(|b| b.find(3)) else { return };
        for (_, elem) in attrs(list) {
            self.element(set, elem);
        }
    }

    fn element(&mut self, set: &Set, elem: &[u8]) -> Option<()> {
        let elem = attrs(elem);
        let mut key = concat_values(&set.key, &read_value(elem.find(1)?)?)?;
        let end = elem.find(3).and_then(attr::be32).unwrap_or(0) & INTERVAL_END != 0;
        let value = match &set.data {
            _ if end => SetValue::None,
            SetData::None => SetValue::None,
            SetData::Verdict => SetValue::Verdict(read_verdict(elem.find(2)?)?),
            SetData::Values(types) => SetValue::Values(concat_values(types, &read_value(elem.find(2)?)?)?),
        };
        if set.flags.interval {
            self.borders.insert((key.pop()?, !end), value);
        } else {
            self.exact.insert(SetKey::Exact(key), value);
        }
        Some(())
    }

    /// The elements, borders paired to ranges. A start without end runs to the next start or to the end of the space; an
    /// end without start (nft marks the beginning of the space with one) means nothing.
    pub(crate) fn finish(self, set: &Set) -> BTreeMap<SetKey, SetValue> {
        let mut elements = self.exact;
        let mut open: Option<(Value, SetValue)> = None;
        for ((at, is_start), value) in self.borders {
            if let Some((first, value)) = open.take()
                && let Some(last) = predecessor(&at)
                && first <= last
            {
                elements.insert(SetKey::Range(first, last), value);
            }
            if is_start {
                open = Some((at, value));
            }
        }
        if let Some((first, value)) = open
            && let Some(last) = set.key.first().and_then(|t| last_value(*t))
        {
            elements.insert(SetKey::Range(first, last), value);
        }
        elements
    }
}
