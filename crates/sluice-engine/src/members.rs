//! The members of a set, and what an edit of one changes.
//!
//! A set may have tens of thousands of members of which an edit changes one. The written lists, old and new, are gone
//! through once; everything after that costs what has changed.

use std::net::IpAddr;

use sluice_addr::{AddrRange, AddrSet, Cidr};
use sluice_model::NetworkSet;

use crate::places::{Line, joined};

/// What has become of a set since the last flush.
#[derive(Debug)]
pub(crate) enum SetEdit {
    /// It must be looked at as a whole.
    Whole,
    /// CIDRs that have left its list (`false`) or joined it (`true`), in order. All else is as before.
    Members(Vec<(Cidr, bool)>),
}

/// Edits of more CIDRs than this are taken as another list.
const MOST_EDITS: usize = 1_024;

/// How far apart the next CIDRs that two lists have in common may be.
const REACH: usize = 32;

impl SetEdit {
    /// What turns one set into the other, which has the same name; `None` if nothing does.
    pub(crate) fn between(old: &NetworkSet, new: &NetworkSet) -> Option<SetEdit> {
        if old.labels != new.labels {
            return Some(SetEdit::Whole);
        }
        match edits(&old.nets, &new.nets) {
            Some(edits) if edits.is_empty() => None,
            Some(edits) => Some(SetEdit::Members(edits)),
            None => Some(SetEdit::Whole),
        }
    }

    /// Another edit has followed.
    pub(crate) fn join(&mut self, later: SetEdit) {
        match (&mut *self, later) {
            (SetEdit::Members(edits), SetEdit::Members(more)) => edits.extend(more),
            (_, SetEdit::Whole) => *self = SetEdit::Whole,
            (SetEdit::Whole, SetEdit::Members(_)) => {}
        }
    }
}

/// The edits that turn one list into the other; `None` if they are very many.
fn edits(old: &[Cidr], new: &[Cidr]) -> Option<Vec<(Cidr, bool)>> {
    let mut edits = Vec::new();
    let (mut old, mut new) = (old, new);
    loop {
        let alike = old.iter().zip(new).take_while(|(a, b)| a == b).count();
        (old, new) = (&old[alike..], &new[alike..]);
        if old.is_empty() && new.is_empty() {
            return Some(edits);
        }
        let goes_on = |(a, b): &(usize, usize)| match (old.get(*a), new.get(*b)) {
            (Some(a), Some(b)) => a == b,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let steps = (1..=REACH).flat_map(|together| (0..=together).map(move |a| (a, together - a)));
        let within = steps.filter(|(a, b)| *a <= old.len() && *b <= new.len());
        let (gone, come) = within.into_iter().find(goes_on)?;
        edits.extend(old[..gone].iter().map(|cidr| (*cidr, false)));
        edits.extend(new[..come].iter().map(|cidr| (*cidr, true)));
        (old, new) = (&old[gone..], &new[come..]);
        if edits.len() > MOST_EDITS {
            return None;
        }
    }
}

/// CIDRs as they are written, as often as they are written: of two that overlap one may go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// First and last addresses, sorted.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl FromIterator<Cidr> for Members {
    fn from_iter<I: IntoIterator<Item = Cidr>>(cidrs: I) -> Self {
        let mut members = Members::default();
        for cidr in cidrs {
            match (cidr.first(), cidr.last()) {
                (IpAddr::V4(a), IpAddr::V4(b)) => members.v4.push((a.to_bits(), b.to_bits())),
                (IpAddr::V6(a), IpAddr::V6(b)) => members.v6.push((a.to_bits(), b.to_bits())),
                _ => unreachable!("a block is of one family"),
            }
        }
        members.v4.sort_unstable();
        members.v6.sort_unstable();
        members.v4.shrink_to_fit();
        members.v6.shrink_to_fit();
        members
    }
}

impl Members {
    /// The addresses of all of them: disjoint ranges.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = AddrRange> {
        let v4 = joined(self.v4.clone()).into_iter().map(range);
        v4.chain(joined(self.v6.clone()).into_iter().map(range))
    }

    /// The addresses of all of them.
    pub(crate) fn addresses(&self) -> AddrSet {
        self.ranges().collect()
    }

    /// One member more. Returns the addresses that none had.
    pub(crate) fn insert(&mut self, cidr: Cidr) -> Vec<AddrRange> {
        match (cidr.first(), cidr.last()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                insert(&mut self.v4, (a.to_bits(), b.to_bits()), around(cidr, bits_of_v4))
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                insert(&mut self.v6, (a.to_bits(), b.to_bits()), around(cidr, bits_of_v6))
            }
            _ => unreachable!("a block is of one family"),
        }
    }

    /// One member less. Returns the addresses that none has any more.
    pub(crate) fn remove(&mut self, cidr: Cidr) -> Vec<AddrRange> {
        match (cidr.first(), cidr.last()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                remove(&mut self.v4, (a.to_bits(), b.to_bits()), around(cidr, bits_of_v4))
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                remove(&mut self.v6, (a.to_bits(), b.to_bits()), around(cidr, bits_of_v6))
            }
            _ => unreachable!("a block is of one family"),
        }
    }
}

fn bits_of_v4(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(_) => unreachable!("what is around a block is of its family"),
    }
}

fn bits_of_v6(address: IpAddr) -> u128 {
    match address {
        IpAddr::V6(ip) => ip.to_bits(),
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
    }
}

/// The larger blocks that hold a block.
fn around<P: 'static>(cidr: Cidr, bits: fn(IpAddr) -> P) -> impl Iterator<Item = (P, P)> {
    (0..cidr.prefix()).map(move |prefix| {
        let block = Cidr::new(cidr.base(), prefix).expect("it is shorter than one of the family");
        (bits(block.first()), bits(block.last()))
    })
}

fn insert<P: Line>(
    list: &mut Vec<(P, P)>,
    block: (P, P),
    around: impl Iterator<Item = (P, P)>,
) -> Vec<AddrRange> {
    let open = open(list, block, around);
    let at = list.partition_point(|other| *other < block);
    list.insert(at, block);
    open
}

fn remove<P: Line>(
    list: &mut Vec<(P, P)>,
    block: (P, P),
    around: impl Iterator<Item = (P, P)>,
) -> Vec<AddrRange> {
    let Ok(at) = list.binary_search(&block) else { return Vec::new() };
    list.remove(at);
    open(list, block, around)
}

/// The part of a block that no member holds. Blocks overlap only where one holds the other.
fn open<P: Line>(
    list: &[(P, P)],
    (first, last): (P, P),
    mut around: impl Iterator<Item = (P, P)>,
) -> Vec<AddrRange> {
    let mut open = Vec::new();
    if around.any(|block| list.binary_search(&block).is_ok()) {
        return open;
    }
    let mut next = Some(first);
    let start = list.partition_point(|(other, _)| *other < first);
    for (from, to) in list[start..].iter().take_while(|(from, _)| *from <= last) {
        let Some(at) = next else { break };
        if let Some(before) = from.previous().filter(|before| at <= *before) {
            open.push(range((at, before)));
        }
        next = to.next().filter(|after| *after > at).or((*to < at).then_some(at));
    }
    open.extend(next.filter(|at| *at <= last).map(|at| range((at, last))));
    open
}

fn range<P: Line>((first, last): (P, P)) -> AddrRange {
    AddrRange::new(first.address(), last.address()).expect("both are of one family and in order")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidrs(text: &str) -> Vec<Cidr> {
        text.split_whitespace().map(|cidr| cidr.parse().unwrap()).collect()
    }

    fn text(edits: &[(Cidr, bool)]) -> String {
        let text = |(cidr, comes): &(Cidr, bool)| format!("{}{cidr}", if *comes { "+" } else { "-" });
        edits.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_edit_is_what_two_lists_do_not_have_in_common() {
        for (old, new, expected) in [
            ("10.0.0.1/32 10.0.0.2/32", "10.0.0.1/32 10.0.0.2/32", ""),
            ("10.0.0.1/32 10.0.0.3/32", "10.0.0.1/32 10.0.0.2/32 10.0.0.3/32", "+10.0.0.2/32"),
            ("10.0.0.1/32 10.0.0.2/32", "10.0.0.2/32", "-10.0.0.1/32"),
            ("10.0.0.1/32 10.0.0.2/32", "10.0.0.1/32", "-10.0.0.2/32"),
            ("10.0.0.1/32 fd00::/8", "10.0.0.4/30 fd00::/8", "-10.0.0.1/32 +10.0.0.4/30"),
            ("", "::/0", "+::/0"),
        ] {
            assert_eq!(text(&edits(&cidrs(old), &cidrs(new)).unwrap()), expected, "{old} → {new}");
        }
        let many = |first: u8| -> Vec<Cidr> {
            (0..200u8).map(|n| Cidr::host(IpAddr::from([10, first, 0, n]))).collect()
        };
        assert_eq!(edits(&many(1), &many(2)), None, "another list");
    }

    /// Every history of small edits ends with the addresses of the members that are left.
    #[test]
    fn edits_change_what_no_other_member_holds() {
        let pool = cidrs(
            "10.0.0.0/30 10.0.0.0/31 10.0.0.0/32 10.0.0.1/32 10.0.0.2/31 10.0.0.3/32 10.0.0.4/30 0.0.0.0/0 \
             255.255.255.255/32 255.255.255.254/31 fd00::/126 fd00::1/128 fd00::2/127 ::/0 \
             ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
        );
        let mut state = 7u64;
        let mut draw = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..200 {
            let (mut members, mut list) = (Members::default(), Vec::<Cidr>::new());
            let mut addresses = AddrSet::new();
            for _ in 0..40 {
                let comes = list.is_empty() || draw(5) < 3;
                if comes {
                    let cidr = pool[draw(pool.len())];
                    list.push(cidr);
                    let new: AddrSet = members.insert(cidr).into_iter().collect();
                    assert!(!addresses.intersects(&new), "{cidr} is new where {addresses} is not");
                    addresses = addresses.union(&new);
                } else {
                    let cidr = list.swap_remove(draw(list.len()));
                    let gone: AddrSet = members.remove(cidr).into_iter().collect();
                    assert!(addresses.is_superset(&gone));
                    addresses = addresses.subtract(&gone);
                }
                assert_eq!(addresses, AddrSet::from_cidrs(list.iter().copied()), "{list:?}");
                assert_eq!(addresses, members.addresses());
                assert_eq!(members, list.iter().copied().collect());
            }
        }
    }
}
