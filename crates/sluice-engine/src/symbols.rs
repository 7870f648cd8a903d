//! Strings as small numbers: each different label key, label value and name is kept once, while somebody uses it.

use std::hash::{BuildHasher, Hasher};

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::ids::{Id, Mark, Sym};

/// A string. Nearly all label values are short, and those stand where they are counted: reading one is one look into
/// memory, which is what an event mostly waits for.
#[derive(Debug)]
enum Text {
    Short { length: u8, bytes: [u8; Text::SHORT] },
    Long(Box<str>),
}

impl Text {
    /// So that a slot is half a line of a processor's cache.
    const SHORT: usize = 22;

    fn new(text: &str) -> Self {
        let mut bytes = [0; Text::SHORT];
        match (u8::try_from(text.len()), bytes.get_mut(..text.len())) {
            (Ok(length), Some(place)) => {
                place.copy_from_slice(text.as_bytes());
                Text::Short { length, bytes }
            }
            _ => Text::Long(text.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Text::Short { length, bytes } => &bytes[..usize::from(*length)],
            Text::Long(text) => text.as_bytes(),
        }
    }
}

#[derive(Debug)]
#[repr(align(32))]
struct Slot {
    text: Text,
    users: u32,
}

/// The strings in use.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    numbers: HashTable<(Mark, Sym)>,
    slots: Vec<Slot>,
    free: Vec<Sym>,
}

fn mark(text: &[u8]) -> Mark {
    let mut hasher = FxBuildHasher.build_hasher();
    hasher.write(text);
    Mark::of(hasher.finish())
}

impl Symbols {
    /// The number of a string, for one more user.
    pub(crate) fn take(&mut self, text: &str) -> Sym {
        let mark = mark(text.as_bytes());
        if let Some(sym) = self.found(mark, text) {
            self.slots[sym.index()].users += 1;
            return sym;
        }
        let slot = Slot { text: Text::new(text), users: 1 };
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
        let same = |(other, sym): &(Mark, Sym)| *other == mark && self.is(*sym, text);
        self.numbers.find(mark.hash(), same).map(|(_, sym)| *sym)
    }

    /// The number of a string that has users.
    pub(crate) fn find(&self, text: &str) -> Option<Sym> {
        self.found(mark(text.as_bytes()), text)
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
            let entry = self.numbers.find_entry(mark(slot.text.bytes()).hash(), |(_, other)| *other == sym);
            drop(entry.map(|entry| entry.remove()));
            self.slots[sym.index()].text = Text::new("");
            self.free.push(sym);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(crate) fn text(&self, sym: Sym) -> &str {
        let bytes = self.bytes(sym);
        std::str::from_utf8(bytes).expect("the bytes are those of a string")
    }

    /// The bytes of [`Symbols::text`].
    pub(crate) fn bytes(&self, sym: Sym) -> &[u8] {
        self.slots[sym.index()].text.bytes()
    }

    /// Is this the string?
    pub(crate) fn is(&self, sym: Sym, text: &str) -> bool {
        *self.bytes(sym) == *text.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_kept_while_they_have_users() {
        let mut symbols = Symbols::default();
        let (a, b) = (symbols.take("a"), symbols.take("b"));
        assert_eq!(symbols.take("a"), a);
        symbols.release(a);
        assert_eq!((symbols.find("a"), symbols.text(b)), (Some(a), "b"));
        symbols.release(a);
        assert_eq!(symbols.find("a"), None);
        assert_eq!(symbols.take("c"), a, "the number is free");
        assert_eq!(symbols.find("b"), Some(b));
    }

    #[test]
    fn short_and_long_strings_are_told_apart() {
        let mut symbols = Symbols::default();
        let texts = [
            "",
            "a",
            "abcdefghijklmnopqrstuv",
            "abcdefghijklmnopqrstuvw",
            "abcdefghijklmnopqrst\u{e9}",
            "x\0",
            "x",
        ];
        let taken = texts.map(|text| symbols.take(text));
        for (text, sym) in texts.iter().zip(taken) {
            assert_eq!((symbols.text(sym), symbols.find(text)), (*text, Some(sym)));
            assert_eq!(taken.iter().filter(|other| symbols.is(**other, text)).count(), 1);
        }
    }
}
