//! The tree that both readers (YAML and JSON) build: values that know their line, shared where an alias repeats them.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::{Map, Number, Value};

use super::lines::LinesBuilder;
use super::{Fault, Limits, Lines, Place};

/// A value and the line it starts on.
#[derive(Debug)]
pub(super) struct Node {
    line: u32,
    /// Levels of nesting below and including this one; bounds every recursion over the tree.
    depth: usize,
    /// Roughly the bytes that the value takes in JSON; what aliases are charged with.
    weight: usize,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    Scalar(Value),
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<(String, Rc<Node>)>),
}

impl Node {
    pub(super) fn scalar(value: Value, line: u32) -> Rc<Node> {
        let weight = match &value {
            Value::String(text) => text.len() + 2,
            Value::Number(_) => 8,
            _ => 4,
        };
        Rc::new(Node { line, depth: 1, weight, data: Data::Scalar(value) })
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.data, Data::Scalar(Value::Null))
    }

    pub(super) fn as_scalar(&self) -> Option<&Value> {
        match &self.data {
            Data::Scalar(value) => Some(value),
            _ => None,
        }
    }

    /// The plain value and its lines.
    pub(super) fn resolve(self: Rc<Node>) -> (Value, Lines) {
        let mut lines = LinesBuilder::default();
        let value = resolve(self, "", &mut lines);
        (value, lines.finish())
    }
}

/// The value of a node, taken out of it unless it is shared.
fn resolve(node: Rc<Node>, name: &str, lines: &mut LinesBuilder) -> Value {
    let line = node.line;
    let data = match Rc::try_unwrap(node) {
        Ok(node) => node.data,
        Err(shared) => shared.data.clone(),
    };
    match data {
        Data::Scalar(value) => {
            lines.leaf(name, line);
            value
        }
        Data::Sequence(items) => {
            let opened = lines.open();
            let values = items.into_iter().map(|item| resolve(item, "", lines)).collect();
            lines.close_list(opened, name, line);
            Value::Array(values)
        }
        Data::Mapping(entries) => {
            let opened = lines.open();
            let mut values = Map::with_capacity(entries.len());
            for (key, node) in entries {
                let value = resolve(node, &key, lines);
                values.insert(key, value);
            }
            lines.close_object(opened, name, line);
            Value::Object(values)
        }
    }
}

/// Turns a number's text into JSON; integers outside int64 and non-finite numbers are refused (API 12).
pub(super) fn finite(value: f64) -> Option<Value> {
    Number::from_f64(value).map(Value::Number)
}

#[derive(Debug)]
enum Frame {
    Sequence { line: u32, anchor: usize, items: Vec<Rc<Node>> },
    Mapping(MappingFrame),
}

#[derive(Debug)]
struct MappingFrame {
    line: u32,
    anchor: usize,
    entries: Vec<(String, Rc<Node>)>,
    /// Where each key is, once there are many.
    index: HashMap<String, usize>,
    key: Option<(String, u32)>,
    /// The key just read is YAML's merge key.
    merging: bool,
    merges: Vec<Rc<Node>>,
}

/// Collects events into a [`Node`], under the limits.
#[derive(Debug)]
pub(super) struct Builder {
    limits: Limits,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Rc<Node>>,
    /// What aliases may still add, in bytes.
    alias_budget: usize,
    pub(super) duplicates: Vec<(String, u32)>,
    root: Option<Rc<Node>>,
}

/// Duplicates listed per document; more help nobody.
const MAX_DUPLICATES: usize = 100;

impl Builder {
    pub(super) fn new(limits: Limits, input_bytes: usize) -> Self {
        Builder {
            limits,
            stack: Vec::new(),
            anchors: HashMap::new(),
            alias_budget: input_bytes.saturating_mul(limits.alias_factor),
            duplicates: Vec::new(),
            root: None,
        }
    }

    /// The finished document, and room for the next one.
    pub(super) fn take_root(&mut self) -> Option<Rc<Node>> {
        self.anchors.clear();
        self.root.take()
    }

    pub(super) fn wants_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame::Mapping(mapping)) if mapping.key.is_none())
    }

    pub(super) fn open_sequence(&mut self, place: Place, anchor: usize) -> Result<(), Fault> {
        self.check_open(place)?;
        self.stack.push(Frame::Sequence { line: place.line, anchor, items: Vec::new() });
        Ok(())
    }

    pub(super) fn open_mapping(&mut self, place: Place, anchor: usize) -> Result<(), Fault> {
        self.check_open(place)?;
        self.stack.push(Frame::Mapping(MappingFrame {
            line: place.line,
            anchor,
            entries: Vec::new(),
            index: HashMap::new(),
            key: None,
            merging: false,
            merges: Vec::new(),
        }));
        Ok(())
    }

    fn check_open(&self, place: Place) -> Result<(), Fault> {
        if self.wants_key() {
            return Err(Fault::at(place, "a mapping key must be a scalar"));
        }
        if self.stack.len() >= self.limits.max_depth {
            return Err(self.too_deep(place));
        }
        Ok(())
    }

    fn too_deep(&self, place: Place) -> Fault {
        Fault::at(place, format!("nested deeper than {} levels", self.limits.max_depth))
    }

    /// The key of the entry whose value comes next; `merging` for YAML's plain `<<`.
    pub(super) fn key(&mut self, key: String, line: u32, merging: bool) {
        if let Some(Frame::Mapping(mapping)) = self.stack.last_mut() {
            mapping.key = Some((key, line));
            mapping.merging = merging;
        }
    }

    pub(super) fn alias(&mut self, place: Place, id: usize) -> Result<(), Fault> {
        let Some(node) = self.anchors.get(&id).cloned() else {
            return Err(Fault::at(place, "the alias refers to a value that is not complete yet"));
        };
        if node.weight > self.alias_budget {
            let factor = self.limits.alias_factor;
            return Err(Fault::at(place, format!("aliases expand to more than {factor} times the input")));
        }
        self.alias_budget -= node.weight;
        if self.wants_key() {
            let key = node.as_scalar().and_then(key_text);
            let key = key.ok_or_else(|| Fault::at(place, "a mapping key must be a scalar"))?;
            self.key(key, place.line, false);
            return Ok(());
        }
        self.add(place, node, 0)
    }

    /// Adds a complete value where the reader stands.
    pub(super) fn add(&mut self, place: Place, node: Rc<Node>, anchor: usize) -> Result<(), Fault> {
        // an alias may hang a deep value below a deep place
        if self.stack.len() + node.depth > self.limits.max_depth + 1 {
            return Err(self.too_deep(place));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let mut duplicate = None;
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Frame::Sequence { items, .. }) => items.push(node),
            Some(Frame::Mapping(mapping)) => {
                let (key, line) = mapping.key.take().unwrap_or_default();
                if mapping.merging {
                    mapping.merges.push(node);
                } else if let Some(at) = mapping.find(&key) {
                    // the last one wins, as in the API's own decoders
                    mapping.entries[at].1 = node;
                    duplicate = Some((key, line));
                } else {
                    mapping.push(key, node);
                }
            }
        }
        if let Some((key, line)) = duplicate
            && self.duplicates.len() < MAX_DUPLICATES
        {
            let path = self.path_of(&key);
            self.duplicates.push((path, line));
        }
        Ok(())
    }

    fn path_of(&self, key: &str) -> String {
        let mut path = String::new();
        for frame in &self.stack[..self.stack.len().saturating_sub(1)] {
            match frame {
                Frame::Sequence { items, .. } => path.push_str(&format!("[{}]", items.len())),
                Frame::Mapping(mapping) => {
                    let key = mapping.key.as_ref().map_or("", |(key, _)| key);
                    super::push_segment(&mut path, key);
                }
            }
        }
        super::push_segment(&mut path, key);
        if path.chars().count() > 256 {
            path = path.chars().take(256).chain(['…']).collect();
        }
        path
    }

    pub(super) fn close(&mut self, place: Place) -> Result<(), Fault> {
        let Some(frame) = self.stack.pop() else {
            return Err(Fault::at(place, "nothing to close here"));
        };
        let (line, anchor, data) = match frame {
            Frame::Sequence { line, anchor, items } => (line, anchor, Data::Sequence(items)),
            Frame::Mapping(mut mapping) => {
                for merge in std::mem::take(&mut mapping.merges) {
                    mapping.merge(place, &merge)?;
                }
                (mapping.line, mapping.anchor, Data::Mapping(mapping.entries))
            }
        };
        let (mut depth, mut weight) = (0, 2usize);
        let mut count = |node: &Node, key: usize| {
            depth = depth.max(node.depth);
            weight = weight.saturating_add(node.weight).saturating_add(key + 2);
        };
        match &data {
            Data::Scalar(_) => {}
            Data::Sequence(items) => items.iter().for_each(|item| count(item, 0)),
            Data::Mapping(entries) => entries.iter().for_each(|(key, node)| count(node, key.len())),
        }
        self.add(place, Rc::new(Node { line, depth: depth + 1, weight, data }), anchor)
    }
}

/// Keys that are looked through one by one.
const FEW: usize = 16;

impl MappingFrame {
    fn find(&self, key: &str) -> Option<usize> {
        match self.entries.len() <= FEW {
            true => self.entries.iter().position(|(known, _)| known == key),
            false => self.index.get(key).copied(),
        }
    }

    /// Adds an entry whose key is new.
    fn push(&mut self, key: String, node: Rc<Node>) {
        self.entries.push((key, node));
        let from = match self.entries.len() {
            ..=FEW => return,
            count if self.index.is_empty() => count - FEW - 1,
            count => count - 1,
        };
        let keys = self.entries.iter().enumerate().skip(from);
        self.index.extend(keys.map(|(at, (key, _))| (key.clone(), at)));
    }

    fn merge(&mut self, place: Place, from: &Node) -> Result<(), Fault> {
        match &from.data {
            Data::Mapping(entries) => {
                for (key, node) in entries {
                    if self.find(key).is_none() {
                        self.push(key.clone(), node.clone());
                    }
                }
                Ok(())
            }
            Data::Sequence(items) => items.iter().try_for_each(|item| match item.data {
                Data::Mapping(_) => self.merge(place, item),
                _ => Err(Fault::at(place, "`<<` takes a mapping or a list of mappings")),
            }),
            Data::Scalar(_) => Err(Fault::at(place, "`<<` takes a mapping or a list of mappings")),
        }
    }
}

/// A scalar as a mapping key: the API's YAML reader turns numbers and booleans into their text, and refuses null.
pub(super) fn key_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}
