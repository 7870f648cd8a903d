//! A growable set of small numbers.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Words of a block.
const WORDS: usize = 4;
/// Numbers of a block.
const BITS: usize = WORDS * 64;

/// The numbers from `at * BITS` on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Block {
    at: u32,
    words: [u64; WORDS],
}

impl Block {
    fn is_empty(&self) -> bool {
        self.words == [0; WORDS]
    }

    fn with(&self, other: &Block, merge: impl Fn(u64, u64) -> u64) -> Block {
        Block { at: self.at, words: std::array::from_fn(|n| merge(self.words[n], other.words[n])) }
    }
}

/// A set of small numbers. It needs room for its members and their neighbours only, however large they are. Equal sets are
/// equal values, whatever they held before.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitSet {
    /// Ascending; none is empty.
    blocks: Vec<Block>,
}

impl BitSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { blocks: Vec::new() }
    }

    /// The numbers below `end`.
    pub fn below(end: usize) -> Self {
        let full = (0..end / BITS).map(|at| Block { at: number(at), words: [u64::MAX; WORDS] });
        let mut blocks: Vec<Block> = full.collect();
        if !end.is_multiple_of(BITS) {
            let mut words = [0; WORDS];
            let rest = end % BITS;
            words[..rest / 64].fill(u64::MAX);
            if !rest.is_multiple_of(64) {
                words[rest / 64] = (1 << (rest % 64)) - 1;
            }
            blocks.push(Block { at: number(end / BITS), words });
        }
        Self { blocks }
    }

    /// The place of a block, or where it would stand.
    fn find(&self, at: u32) -> Result<usize, usize> {
        match self.blocks.last() {
            // members often come in ascending order
            Some(last) if last.at < at => Err(self.blocks.len()),
            Some(last) if last.at == at => Ok(self.blocks.len() - 1),
            _ => self.blocks.binary_search_by_key(&at, |block| block.at),
        }
    }

    /// Adds `bit`; whether it was absent.
    pub fn insert(&mut self, bit: usize) -> bool {
        let at = number(bit / BITS);
        let place = self.find(at).unwrap_or_else(|place| {
            self.blocks.insert(place, Block { at, words: [0; WORDS] });
            place
        });
        let word = &mut self.blocks[place].words[bit % BITS / 64];
        let absent = *word >> (bit % 64) & 1 == 0;
        *word |= 1 << (bit % 64);
        absent
    }

    /// Removes `bit`; whether it was present.
    pub fn remove(&mut self, bit: usize) -> bool {
        let Ok(place) = self.find(number(bit / BITS)) else { return false };
        let word = &mut self.blocks[place].words[bit % BITS / 64];
        let present = *word >> (bit % 64) & 1 == 1;
        *word &= !(1 << (bit % 64));
        if self.blocks[place].is_empty() {
            self.blocks.remove(place);
        }
        present
    }

    /// Adds `bit` if absent, else removes it.
    pub fn toggle(&mut self, bit: usize) {
        if !self.remove(bit) {
            self.insert(bit);
        }
    }

    /// Whether the set holds `bit`.
    pub fn contains(&self, bit: usize) -> bool {
        let block = self.find(number(bit / BITS)).ok();
        block.is_some_and(|place| self.blocks[place].words[bit % BITS / 64] >> (bit % 64) & 1 == 1)
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.blocks.iter().flat_map(|block| block.words).map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the set has no members.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.blocks.iter().flat_map(|block| {
            let words = block.words.into_iter().enumerate();
            words.map(|(n, word)| (block.at as usize * BITS + n * 64, word))
        });
        words.flat_map(|(first, word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(first + bit)
            })
        })
    }

    /// The lowest member.
    pub fn first(&self) -> Option<usize> {
        self.iter().next()
    }

    /// Adds the members of `other`.
    pub fn or_with(&mut self, other: &Self) {
        if other.blocks.iter().all(|block| self.find(block.at).is_ok()) {
            for block in &other.blocks {
                if let Ok(place) = self.find(block.at) {
                    self.blocks[place] = self.blocks[place].with(block, |a, b| a | b);
                }
            }
            return;
        }
        *self = self.or(other);
    }

    /// Keeps the members that `other` holds too.
    pub fn and_with(&mut self, other: &Self) {
        self.keep(other, false, |a, b| a & b);
    }

    /// Removes the members of `other`.
    pub fn andnot_with(&mut self, other: &Self) {
        self.keep(other, true, |a, b| a & !b);
    }

    /// Replaces the blocks that both have, in place; those that only `self` has stay if `alone`.
    fn keep(&mut self, other: &Self, alone: bool, merge: impl Fn(u64, u64) -> u64) {
        let mut theirs = Cursor::new(other, self);
        self.blocks.retain_mut(|block| match theirs.at(block.at) {
            Some(their) => {
                *block = block.with(their, &merge);
                !block.is_empty()
            }
            None => alone,
        });
    }

    /// Members of either.
    pub fn or(&self, other: &Self) -> Self {
        let mut blocks = Vec::with_capacity(self.blocks.len().max(other.blocks.len()));
        let (mut own, mut theirs) = (&*self.blocks, &*other.blocks);
        while let (Some(a), Some(b)) = (own.first(), theirs.first()) {
            let order = a.at.cmp(&b.at);
            blocks.push(match order {
                Ordering::Less => *a,
                Ordering::Equal => a.with(b, |a, b| a | b),
                Ordering::Greater => *b,
            });
            own = &own[usize::from(order.is_le())..];
            theirs = &theirs[usize::from(order.is_ge())..];
        }
        blocks.extend(own.iter().chain(theirs));
        Self { blocks }
    }

    /// Members of both.
    pub fn and(&self, other: &Self) -> Self {
        let (few, many) = if self.blocks.len() <= other.blocks.len() { (self, other) } else { (other, self) };
        let mut theirs = Cursor::new(many, few);
        let common =
            few.blocks.iter().filter_map(|block| Some(block.with(theirs.at(block.at)?, |a, b| a & b)));
        Self { blocks: common.filter(|block| !block.is_empty()).collect() }
    }

    /// Members of `self` and not of `other`.
    pub fn andnot(&self, other: &Self) -> Self {
        let mut theirs = Cursor::new(other, self);
        let rest = self
            .blocks
            .iter()
            .map(|block| theirs.at(block.at).map_or(*block, |their| block.with(their, |a, b| a & !b)));
        Self { blocks: rest.filter(|block| !block.is_empty()).collect() }
    }

    /// Whether the sets share a member.
    pub fn intersects(&self, other: &Self) -> bool {
        let (few, many) = if self.blocks.len() <= other.blocks.len() { (self, other) } else { (other, self) };
        let mut theirs = Cursor::new(many, few);
        few.blocks
            .iter()
            .any(|block| theirs.at(block.at).is_some_and(|their| !block.with(their, |a, b| a & b).is_empty()))
    }

    /// Whether `other` holds every member of `self`.
    pub fn is_subset(&self, other: &Self) -> bool {
        let mut theirs = Cursor::new(other, self);
        self.blocks.len() <= other.blocks.len()
            && self.blocks.iter().all(|block| {
                theirs.at(block.at).is_some_and(|their| block.with(their, |a, b| a & !b).is_empty())
            })
    }

    /// Removes every member.
    pub fn clear(&mut self) {
        self.blocks.clear();
    }
}

/// A block's number. Members are counted things, and no list has 2^40 of them.
fn number(at: usize) -> u32 {
    u32::try_from(at).expect("numbers of a set are below 2^40")
}

/// The blocks of a set, asked for in ascending order.
struct Cursor<'s> {
    blocks: &'s [Block],
    /// Many more than are asked for, so that each is searched for.
    is_long: bool,
}

impl<'s> Cursor<'s> {
    fn new(set: &'s BitSet, asked_by: &BitSet) -> Self {
        Cursor { blocks: &set.blocks, is_long: set.blocks.len() / 8 > asked_by.blocks.len() }
    }

    fn at(&mut self, at: u32) -> Option<&'s Block> {
        let before = match self.is_long {
            true => self.blocks.partition_point(|block| block.at < at),
            false => self.blocks.iter().take_while(|block| block.at < at).count(),
        };
        self.blocks = &self.blocks[before..];
        self.blocks.first().filter(|block| block.at == at)
    }
}

impl FromIterator<usize> for BitSet {
    fn from_iter<I: IntoIterator<Item = usize>>(bits: I) -> Self {
        let mut set = Self::new();
        set.extend(bits);
        set
    }
}

impl Extend<usize> for BitSet {
    fn extend<I: IntoIterator<Item = usize>>(&mut self, bits: I) {
        for bit in bits {
            self.insert(bit);
        }
    }
}

impl fmt::Debug for BitSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// As the list of its members.
impl Serialize for BitSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Members are at most 2^24, so that a forged number cannot demand memory.
impl<'de> Deserialize<'de> for BitSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bits = Vec::<u32>::deserialize(deserializer)?;
        match bits.iter().find(|&&bit| bit > 1 << 24) {
            Some(bit) => Err(serde::de::Error::custom(format!("bit {bit} is above 2^24"))),
            None => Ok(bits.into_iter().map(|bit| bit as usize).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn both() -> impl Strategy<Value = (BTreeSet<usize>, BTreeSet<usize>)> {
        // dense, and with blocks that only one of both has
        let number = prop_oneof![0usize..200, 0usize..200, 5_000usize..5_600, 90_000usize..90_010];
        let set = move || proptest::collection::btree_set(number.clone(), 0..60);
        let long = proptest::collection::btree_set(0usize..20_000, 0..200);
        prop_oneof![(set(), set()), (set(), long.clone()), (long, set())]
    }

    fn members(set: &BitSet) -> Vec<usize> {
        set.iter().collect()
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_numbers((a, b) in both()) {
            let (x, y): (BitSet, BitSet) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(members(&x), a.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(members(&x.or(&y)), a.union(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(members(&x.and(&y)), a.intersection(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(members(&x.andnot(&y)), a.difference(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(x.intersects(&y), !a.is_disjoint(&b));
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            prop_assert_eq!(x.len(), a.len());
            for (one, other, set) in [(&x, &y, x.or(&y)), (&y, &x, x.or(&y))] {
                let mut changed = one.clone();
                changed.or_with(other);
                prop_assert_eq!(changed, set);
            }
            let (mut kept, mut rest) = (x.clone(), x.clone());
            kept.and_with(&y);
            rest.andnot_with(&y);
            prop_assert_eq!((kept, rest), (x.and(&y), x.andnot(&y)));
            for number in a.iter().chain(&b) {
                prop_assert_eq!(x.contains(*number), a.contains(number));
            }
            // A set that shrank is the same value as one that never grew.
            let mut grown = x.clone();
            grown.insert(100_000);
            grown.remove(100_000);
            prop_assert_eq!(grown, x.andnot(&BitSet::from_iter([100_000])));
        }
    }

    #[test]
    fn below_counts() {
        for end in [0, 1, 63, 64, 65, 128, 255, 256, 257, 320, 1_000] {
            assert_eq!(members(&BitSet::below(end)), (0..end).collect::<Vec<_>>());
        }
    }
}
