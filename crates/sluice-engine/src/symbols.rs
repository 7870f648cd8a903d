//! Strings as small numbers: each different label key, label value and name is kept once, while somebody uses it.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::ids::{Id, Sym};

#[derive(Debug)]
struct Slot {
    text: Arc<str>,
    users: u32,
}

/// The strings in use.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    numbers: HashTable<Sym>,
    slots: Vec<Slot>,
    free: Vec<Sym>,
}

fn hash(text: &str) -> u64 {
    FxBuildHasher.hash_one(text)
}

impl Symbols {
    /// The number of a string, for one more user.
    pub(crate) fn take(&mut self, text: &Arc<str>) -> Sym {
        self.take_with(text, || text.clone())
    }

    /// [`Symbols::take`] of a string that is not shared yet.
    pub(crate) fn take_str(&mut self, text: &str) -> Sym {
        self.take_with(text, || text.into())
    }

    fn take_with(&mut self, text: &str, keep: impl FnOnce() -> Arc<str>) -> Sym {
        let hash_of_text = hash(text);
        if let Some(&sym) = self.numbers.find(hash_of_text, |sym| *self.slots[sym.index()].text == *text) {
            self.slots[sym.index()].users += 1;
            return sym;
        }
        let slot = Slot { text: keep(), users: 1 };
        let sym = match self.free.pop() {
            Some(sym) => {
                self.slots[sym.index()] = slot;
                sym
            }
            None => {
                self.slots.push(slot);
                Sym::from_index(self.slots.len() - 1)
            }
        };
        let slots = &self.slots;
        self.numbers.insert_unique(hash_of_text, sym, |sym| hash(&slots[sym.index()].text));
        sym
    }

    /// The number of a string that has users.
    pub(crate) fn find(&self, text: &str) -> Option<Sym> {
        self.numbers.find(hash(text), |sym| *self.slots[sym.index()].text == *text).copied()
    }

    /// One more user.
    pub(crate) fn retain(&mut self, sym: Sym) -> Sym {
        self.slots[sym.index()].users += 1;
        sym
    }

    /// One user less; a string without users is forgotten.
    pub(crate) fn release(&mut self, sym: Sym) {
        let slot = &mut self.slots[sym.index()];
        slot.users -= 1;
        if slot.users == 0 {
            let entry = self.numbers.find_entry(hash(&slot.text), |other| *other == sym);
            drop(entry.map(|entry| entry.remove()));
            self.slots[sym.index()].text = Arc::default();
            self.free.push(sym);
        }
    }

    pub(crate) fn text(&self, sym: Sym) -> &Arc<str> {
        &self.slots[sym.index()].text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_kept_while_they_have_users() {
        let mut symbols = Symbols::default();
        let (a, b) = (symbols.take_str("a"), symbols.take_str("b"));
        assert_eq!(symbols.take_str("a"), a);
        symbols.release(a);
        assert_eq!((symbols.find("a"), &**symbols.text(b)), (Some(a), "b"));
        symbols.release(a);
        assert_eq!(symbols.find("a"), None);
        assert_eq!(symbols.take_str("c"), a, "the number is free");
        assert_eq!(symbols.find("b"), Some(b));
    }
}
