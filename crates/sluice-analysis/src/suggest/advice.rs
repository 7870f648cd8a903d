//! Answers: policies with what they do.

use std::fmt::Write;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use sluice_model::{Object, ObjectDelta, ObjectKey, Policy, World};
use sluice_report::{ConnectionChange, ConnectivityDiff};

use super::draft::Draft;
use super::manifest::manifest;
use super::yaml::to_yaml;
use crate::diff::diff;
use crate::snapshot::Snapshot;

/// What is suggested for a question: alternatives, the least one first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Advice {
    /// Each is whole by itself.
    pub alternatives: Vec<Suggestion>,
    /// Why there is none, or what else the asker should know.
    pub notes: Vec<String>,
}

impl Advice {
    pub(super) fn none(note: impl Into<String>) -> Self {
        Advice { alternatives: Vec::new(), notes: vec![note.into()] }
    }
}

/// Policies that belong together, and what they do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suggestion {
    /// The policies, in the order in which they should be applied.
    pub policies: Vec<SuggestedPolicy>,
    /// What they are for, as one sentence.
    pub explanation: String,
    /// What they do beside that, and what they cannot do.
    pub warnings: Vec<String>,
    /// What differs once they are applied, as found by comparing.
    pub changes: ConnectivityDiff,
}

impl Suggestion {
    /// The rows that open something.
    pub fn opens(&self) -> impl Iterator<Item = &ConnectionChange> {
        self.changes.changes.iter().filter(|change| !change.gained.is_empty())
    }

    /// The rows that close something.
    pub fn closes(&self) -> impl Iterator<Item = &ConnectionChange> {
        self.changes.changes.iter().filter(|change| !change.lost.is_empty())
    }

    /// The policies as one YAML stream that can be applied as it is; explanation and warnings stand in comments.
    pub fn yaml(&self) -> String {
        let mut text = String::new();
        comment(&mut text, &self.explanation);
        for warning in &self.warnings {
            comment(&mut text, &format!("warning: {warning}"));
        }
        for (n, policy) in self.policies.iter().enumerate() {
            if n > 0 {
                text.push_str("---\n");
            }
            if self.policies.len() > 1 {
                comment(&mut text, &policy.purpose);
            }
            text.push_str(&to_yaml(&policy.manifest));
        }
        text
    }
}

/// Names come from the objects: none may end a comment.
fn comment(text: &mut String, sentence: &str) {
    let plain: String = sentence.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let _ = writeln!(text, "# {plain}");
}

/// One policy of a suggestion.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuggestedPolicy {
    /// What it is there for.
    pub purpose: String,
    /// The object, fields in the order in which people write them.
    pub manifest: Value,
    /// The same as the law reads it.
    #[serde(skip)]
    pub policy: Arc<Policy>,
}

/// The objects with the policies of a suggestion that is being made.
pub(super) struct Work<'s> {
    pub(super) before: &'s Snapshot,
    pub(super) world: World,
    pub(super) policies: Vec<SuggestedPolicy>,
    warnings: Vec<String>,
}

impl<'s> Work<'s> {
    pub(super) fn new(before: &'s Snapshot) -> Self {
        Work { before, world: before.world().clone(), policies: Vec::new(), warnings: Vec::new() }
    }

    /// A name that no object of the draft's kind has.
    pub(super) fn free_name(&self, draft: &mut Draft) {
        let wanted = draft.name.clone();
        let mut number = 1;
        while self.world.policies.contains_key(&draft.key()) {
            number += 1;
            draft.name = format!("{wanted}-{number}");
        }
    }

    /// Puts a policy into the objects, to be judged; take it out again with [`Work::retract`].
    pub(super) fn try_policy(&mut self, policy: &Policy) -> ObjectKey {
        self.world.apply(ObjectDelta::Upsert(Object::Policy(Arc::new(policy.clone()))));
        policy.key.clone()
    }

    pub(super) fn retract(&mut self, key: &ObjectKey) {
        self.world.apply(ObjectDelta::Delete(key.clone()));
    }

    /// Takes a policy that stays.
    pub(super) fn accept(&mut self, policy: Policy, purpose: String, labels: &[(&str, &str)]) {
        self.try_policy(&policy);
        let manifest = manifest(&policy, labels);
        self.policies.push(SuggestedPolicy { purpose, manifest, policy: Arc::new(policy) });
    }

    pub(super) fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// The objects as they are now, compiled.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.before.with_world(self.world.clone())
    }

    /// The suggestion, with what it changes.
    pub(super) fn finish(self, explanation: String) -> Suggestion {
        let after = self.snapshot();
        self.finish_with(&after, explanation)
    }

    /// As [`Work::finish`] where the objects are compiled already.
    pub(super) fn finish_with(self, after: &Snapshot, explanation: String) -> Suggestion {
        let changes = diff(self.before, after);
        Suggestion { policies: self.policies, explanation, warnings: self.warnings, changes }
    }
}
