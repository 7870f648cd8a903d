//! The reader of selector texts (semantics 3.3).

use std::collections::BTreeSet;
use std::sync::Arc;

use thiserror::Error;

use crate::Selector;

/// The longest text that is a selector, in characters.
const LONGEST_TEXT: usize = 1024;
/// The longest label key, in characters.
const LONGEST_LABEL: usize = 512;

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// The grammar wants something else here.
    #[error("expected {expected} at byte {at} of {text:?}")]
    Expected {
        /// What should stand here.
        expected: &'static str,
        /// The offset in bytes, from 0.
        at: usize,
        /// The selector as written.
        text: String,
    },
    /// `global()` in another place than a whole `namespaceSelector` of a rule.
    #[error("global() at byte {at} of {text:?} is allowed only as the whole namespaceSelector of a rule")]
    Global {
        /// The offset in bytes, from 0.
        at: usize,
        /// The selector as written.
        text: String,
    },
    /// More than 1024 characters.
    #[error("the selector has {0} characters; at most 1024 are allowed")]
    TooLong(usize),
}

/// An open parenthesis, or the whole text: the alternatives read so far, the conjuncts of the current one, and
/// whether an odd number of `!` stands before the operand that comes next.
#[derive(Default)]
struct Level {
    alternatives: Vec<Selector>,
    conjuncts: Vec<Selector>,
    negate: bool,
}

impl Level {
    fn operand(&mut self, selector: Selector) {
        let negate = std::mem::take(&mut self.negate);
        self.conjuncts.push(if negate { selector.not() } else { selector });
    }

    fn alternative(&mut self) {
        let conjuncts = std::mem::take(&mut self.conjuncts);
        self.alternatives.push(Selector::and(conjuncts));
    }

    fn finish(mut self) -> Selector {
        self.alternative();
        Selector::or(self.alternatives)
    }
}

/// Reads a whole text. Levels are kept on a list, not on the stack: a text of nothing but parentheses is harmless.
pub(crate) fn parse(text: &str, global_allowed: bool) -> Result<Selector, SelectorError> {
    let length = text.chars().count();
    if length > LONGEST_TEXT {
        return Err(SelectorError::TooLong(length));
    }
    let mut reader = Reader { text, at: 0 };
    reader.blanks();
    if reader.rest().is_empty() {
        return Ok(Selector::All);
    }
    if global_allowed && reader.whole_global() {
        return Ok(Selector::Global);
    }
    let mut outer: Vec<Level> = Vec::new();
    let mut level = Level::default();
    loop {
        reader.blanks();
        while reader.symbol("!") {
            level.negate = !level.negate;
            reader.blanks();
        }
        if reader.symbol("(") {
            outer.push(std::mem::take(&mut level));
            continue;
        }
        level.operand(reader.leaf()?);
        loop {
            reader.blanks();
            if reader.symbol("&&") {
                break;
            }
            if reader.symbol("||") {
                level.alternative();
                break;
            }
            match outer.pop() {
                Some(around) => {
                    if !reader.symbol(")") {
                        return Err(reader.expected("&&, || or )"));
                    }
                    let inner = std::mem::replace(&mut level, around).finish();
                    level.operand(inner);
                }
                None if reader.rest().is_empty() => return Ok(level.finish()),
                None => return Err(reader.expected("&&, || or the end")),
            }
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    /// Always at a character boundary.
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        SelectorError::Expected { expected, at: self.at, text: self.text.to_owned() }
    }

    /// Spaces and TABs; a newline is an error wherever it stands outside a string.
    fn blanks(&mut self) {
        self.at += self.rest().bytes().take_while(|b| matches!(b, b' ' | b'\t')).count();
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len();
        }
        found
    }

    /// A word that ends where no label character follows.
    fn word(&mut self, word: &str) -> bool {
        let found = self.label_length() == word.len() && self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// `first` and `second` with any number of blanks between them, also none.
    fn two_words(&mut self, first: &str, second: &str) -> bool {
        let start = self.at;
        if self.symbol(first) {
            self.blanks();
            if self.word(second) {
                return true;
            }
        }
        self.at = start;
        false
    }

    fn whole_global(&self) -> bool {
        let Some(rest) = self.rest().strip_prefix("global(") else { return false };
        let blanks: &[char] = &[' ', '\t'];
        rest.trim_start_matches(blanks)
            .strip_prefix(')')
            .is_some_and(|rest| rest.trim_start_matches(blanks).is_empty())
    }

    fn label_length(&self) -> usize {
        let is_label = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-');
        self.rest().bytes().take_while(is_label).count()
    }

    fn label(&mut self) -> Result<&'a str, SelectorError> {
        match self.label_length() {
            0 => Err(self.expected("a label")),
            length if length > LONGEST_LABEL => Err(self.expected("a label of at most 512 characters")),
            length => {
                let label = &self.rest()[..length];
                self.at += length;
                Ok(label)
            }
        }
    }

    /// Every atom but a parenthesis.
    fn leaf(&mut self) -> Result<Selector, SelectorError> {
        let start = self.at;
        if self.label_length() == 0 {
            return Err(self.expected("a label, has(, all(, ! or ("));
        }
        let label = self.label()?;
        match label {
            "has" if self.symbol("(") => {
                self.blanks();
                let key = self.label()?;
                self.close()?;
                return Ok(Selector::Has(key.into()));
            }
            "all" if self.symbol("(") => {
                self.close()?;
                return Ok(Selector::All);
            }
            "global" if self.symbol("(") => {
                self.close()?;
                return Err(SelectorError::Global { at: start, text: self.text.to_owned() });
            }
            _ => {}
        }
        let key: Arc<str> = label.into();
        self.blanks();
        if self.symbol("==") {
            return Ok(Selector::Equals(key, self.string()?));
        }
        if self.symbol("!=") {
            return Ok(Selector::NotEquals(key, self.string()?));
        }
        if self.word("contains") {
            return Ok(Selector::Contains(key, self.string()?));
        }
        if self.two_words("starts", "with") {
            return Ok(Selector::StartsWith(key, self.string()?));
        }
        if self.two_words("ends", "with") {
            return Ok(Selector::EndsWith(key, self.string()?));
        }
        if self.word("in") {
            return Ok(Selector::In(key, self.set()?));
        }
        if self.two_words("not", "in") {
            return Ok(Selector::NotIn(key, self.set()?));
        }
        Err(self.expected("==, !=, in, not in, contains, starts with or ends with"))
    }

    fn close(&mut self) -> Result<(), SelectorError> {
        self.blanks();
        if self.symbol(")") { Ok(()) } else { Err(self.expected(")")) }
    }

    /// A quoted string; the grammar knows no escapes.
    fn string(&mut self) -> Result<Arc<str>, SelectorError> {
        self.blanks();
        let quote = match self.rest().bytes().next() {
            Some(b'"') => '"',
            Some(b'\'') => '\'',
            _ => return Err(self.expected("a quoted string")),
        };
        let inside = &self.rest()[1..];
        let Some(length) = inside.find(quote) else {
            self.at = self.text.len();
            return Err(self.expected(if quote == '"' { "a closing \"" } else { "a closing '" }));
        };
        self.at += length + 2;
        Ok(inside[..length].into())
    }

    /// `{ [ string { "," string } [ "," ] ] }`.
    fn set(&mut self) -> Result<BTreeSet<Arc<str>>, SelectorError> {
        self.blanks();
        if !self.symbol("{") {
            return Err(self.expected("{"));
        }
        let mut values = BTreeSet::new();
        loop {
            self.blanks();
            if self.symbol("}") {
                return Ok(values);
            }
            if !matches!(self.rest().bytes().next(), Some(b'"' | b'\'')) {
                return Err(self.expected("a quoted string or }"));
            }
            values.insert(self.string()?);
            self.blanks();
            if !self.symbol(",") {
                return if self.symbol("}") { Ok(values) } else { Err(self.expected(", or }")) };
            }
        }
    }
}
