//! Strings as small numbers: each different label key, label value and name is kept once, while somebody uses it.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::ids::{Id, Mark, Sym};

#[derive(Debug)]
struct Slot {
    text: Arc<str>,
    users: u32,
}

/// The strings in use.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    numbers: HashTable<(Mark, Sym)>,
    slots: Vec<Slot>,
    free: Vec<Sym>,
}

fn mark(text: &str) -> Mark {
    Mark::of(FxBuildHasher.hash_one(text))
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
        let mark = mark(text);
        if let Some(sym) = self.found(mark, text) {
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
        self.numbers.insert_unique(mark.hash(), (mark, sym), |(mark, _)| mark.hash());
        sym
    }

    fn found(&self, mark: Mark, text: &str) -> Option<Sym> {
        let same = |(other, sym): &(Mark, Sym)| *other == mark && *self.slots[sym.index()].text == *text;
        self.numbers.find(mark.hash(), same).map(|(_, sym)| *sym)
    }

    /// The number of a string that has users.
    pub(crate) fn find(&self, text: &str) -> Option<Sym> {
        self.found(mark(text), text)
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
            let entry = self.numbers.find_entry(mark(&slot.text).hash(), |(_, other)| *other == sym);
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
