//! A growable set of small numbers.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set of small numbers, 64 to a word. Equal sets are equal values, whatever they held before.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitSet {
    /// Never ends in a zero word.
    words: Vec<u64>,
}

impl BitSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { words: Vec::new() }
    }

    /// The numbers below `end`.
    pub fn below(end: usize) -> Self {
        let mut words = vec![u64::MAX; end / 64];
        if !end.is_multiple_of(64) {
            words.push((1 << (end % 64)) - 1);
        }
        Self { words }
    }

    /// Adds `bit`; whether it was absent.
    pub fn insert(&mut self, bit: usize) -> bool {
        let absent = !self.contains(bit);
        if absent {
            self.toggle(bit);
        }
        absent
    }

    /// Removes `bit`; whether it was present.
    pub fn remove(&mut self, bit: usize) -> bool {
        let present = self.contains(bit);
        if present {
            self.toggle(bit);
        }
        present
    }

    /// Adds `bit` if absent, else removes it.
    pub fn toggle(&mut self, bit: usize) {
        if self.words.len() <= bit / 64 {
            self.words.resize(bit / 64 + 1, 0);
        }
        self.words[bit / 64] ^= 1 << (bit % 64);
        self.trim();
    }

    /// Whether the set holds `bit`.
    pub fn contains(&self, bit: usize) -> bool {
        self.words.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the set has no members.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(n, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(n * 64 + bit)
            })
        })
    }

    /// The lowest member.
    pub fn first(&self) -> Option<usize> {
        self.iter().next()
    }

    /// Adds the members of `other`.
    pub fn or_with(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    /// Keeps the members that `other` holds too.
    pub fn and_with(&mut self, other: &Self) {
        self.words.truncate(other.words.len());
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= other;
        }
        self.trim();
    }

    /// Removes the members of `other`.
    pub fn andnot_with(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= !other;
        }
        self.trim();
    }

    /// Members of either.
    pub fn or(&self, other: &Self) -> Self {
        let mut result = self.clone();
        result.or_with(other);
        result
    }

    /// Members of both.
    pub fn and(&self, other: &Self) -> Self {
        let mut result = self.clone();
        result.and_with(other);
        result
    }

    /// Members of `self` and not of `other`.
    pub fn andnot(&self, other: &Self) -> Self {
        let mut result = self.clone();
        result.andnot_with(other);
        result
    }

    /// Whether the sets share a member.
    pub fn intersects(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).any(|(a, b)| a & b != 0)
    }

    /// Whether `other` holds every member of `self`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.words.len() <= other.words.len() && self.words.iter().zip(&other.words).all(|(a, b)| a & !b == 0)
    }

    /// Removes every member.
    pub fn clear(&mut self) {
        self.words.clear();
    }

    fn trim(&mut self) {
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
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
        let set = || proptest::collection::btree_set(0usize..200, 0..40);
        (set(), set())
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
            // A set that shrank is the same value as one that never grew.
            let mut grown = x.clone();
            grown.insert(100_000);
            grown.remove(100_000);
            prop_assert_eq!(grown, x.andnot(&BitSet::from_iter([100_000])));
        }
    }

    #[test]
    fn below_counts() {
        for end in [0, 1, 63, 64, 65, 128] {
            assert_eq!(members(&BitSet::below(end)), (0..end).collect::<Vec<_>>());
        }
    }
}
