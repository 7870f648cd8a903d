//! Dense numbers for values.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Gives equal values one dense number, in order of first appearance. Wrap the number in a newtype of yours.
#[derive(Clone, Debug)]
pub struct Interner<T> {
    numbers: HashMap<Arc<T>, u32>,
    values: Vec<Arc<T>>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Eq + Hash> Interner<T> {
    /// An interner without values.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of `value`, new if the value is.
    ///
    /// # Panics
    /// After 2^32 different values.
    pub fn intern(&mut self, value: T) -> u32 {
        if let Some(&number) = self.numbers.get(&value) {
            return number;
        }
        let number = u32::try_from(self.values.len()).expect("fewer than 2^32 different values");
        let value = Arc::new(value);
        self.values.push(Arc::clone(&value));
        self.numbers.insert(value, number);
        number
    }

    /// The number of `value`, if it was interned.
    pub fn number(&self, value: &T) -> Option<u32> {
        self.numbers.get(value).copied()
    }

    /// The value behind `number`, if this interner gave it.
    pub fn get(&self, number: u32) -> Option<&T> {
        self.values.get(number as usize).map(Arc::as_ref)
    }

    /// The values in order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(self.values.iter().map(Arc::as_ref))
    }

    /// How many different values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing was interned.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_a_number() {
        let mut interner = Interner::new();
        assert_eq!((interner.intern("a"), interner.intern("b"), interner.intern("a")), (0, 1, 0));
        assert_eq!(interner.number(&"b"), Some(1));
        assert_eq!(interner.number(&"c"), None);
        assert_eq!(interner.get(1), Some(&"b"));
        assert_eq!(interner.get(2), None);
        assert_eq!(interner.iter().collect::<Vec<_>>(), [(0, &"a"), (1, &"b")]);
    }
}
