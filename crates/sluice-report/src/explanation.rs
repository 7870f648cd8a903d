//! Why a connection is allowed or denied: every tier, policy and rule that mattered.

use serde::{Deserialize, Serialize};
use sluice_addr::Flow;

use crate::answer::Answer;

/// The reasons behind one verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Always `sluice.dev/v1alpha1`.
    pub api_version: String,
    /// Always `Explanation`.
    pub kind: String,
    /// The source by name.
    pub from: String,
    /// The destination by name.
    pub to: String,
    /// All paths together: denied if one is, else undecided if one is.
    pub verdict: Answer,
    /// What happens to the packet before it is judged: how a Service address is translated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// The connections that are judged: one, or one per backend of a Service.
    pub paths: Vec<PathExplanation>,
    /// What would have to be known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// One connection as it is judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathExplanation {
    /// The source by name.
    pub from: String,
    /// The destination by name.
    pub to: String,
    /// Translations on the way, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// The packet as the ingress leg sees it.
    pub flow: Flow,
    /// Both legs together.
    pub verdict: Answer,
    /// The clause of the law that decides without policies, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clause: Option<String>,
    /// The legs that were judged, egress first; a node and an outside address have none.
    pub legs: Vec<LegExplanation>,
    /// The stages of host endpoints on the path, in order, up to one that denies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<String>,
    /// What would have to be known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// One leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegExplanation {
    /// `egress` or `ingress`.
    pub direction: String,
    /// The pod whose policies were asked.
    pub pod: String,
    /// The packet as this leg sees it.
    pub flow: Flow,
    /// The leg's verdict.
    pub verdict: Answer,
    /// What decided, as one clause.
    pub reason: String,
    /// The rule that decided, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RulePlace>,
    /// The tiers that took part, in order, up to the one that decided.
    pub tiers: Vec<TierExplanation>,
    /// If denied: the Allow rule that failed by the fewest criteria, the first of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<RuleExplanation>,
    /// Policies that could be expected to apply and do not, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bystanders: Vec<Bystander>,
    /// Further policies that do not apply, counted.
    #[serde(default)]
    pub others: usize,
}

/// Where a rule or policy stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RulePlace {
    /// The object: `NetworkPolicy shop/web`.
    pub object: String,
    /// The field: `spec.ingress[0]`.
    pub path: String,
    /// `file:line`, if it came from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
}

/// One tier that took part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierExplanation {
    /// Its name.
    pub tier: String,
    /// `Deny` or `Pass`.
    pub default_action: String,
    /// The policies that select the pod, in order, up to the one that decided.
    pub policies: Vec<PolicyExplanation>,
    /// How it ended, as one clause.
    pub outcome: String,
}

/// What a policy said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicySays {
    /// A rule of it allows.
    Admits,
    /// It has rules, and none matches.
    DoesNotAdmit,
    /// A rule of it denies.
    Denies,
    /// A rule of it leaves the decision to the next tier.
    Passes,
    /// It has no rules in this direction.
    NoRules,
}

/// A policy that selects the pod in this direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyExplanation {
    /// Which.
    pub policy: RulePlace,
    /// What it said.
    pub says: PolicySays,
    /// Its rules in order, up to the one that decided.
    pub rules: Vec<RuleExplanation>,
}

/// A rule that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleExplanation {
    /// Which.
    pub rule: RulePlace,
    /// `Allow`, `Deny`, `Pass` or `Log`.
    pub action: String,
    /// The criteria that failed; none if the rule matched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Failed>,
}

/// A criterion that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// Which: `peer`, `port`, `source selector`.
    pub criterion: String,
    /// What it needs.
    pub needs: String,
    /// What is there instead.
    pub found: String,
}

/// A policy that does not apply.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bystander {
    /// The object.
    pub policy: String,
    /// Why it does not apply.
    pub reason: String,
}

impl Explanation {
    /// The explanation of these paths.
    pub fn new(from: String, to: String, steps: Vec<String>, paths: Vec<PathExplanation>) -> Self {
        let any = |verdict| paths.iter().any(|path| path.verdict == verdict);
        let verdict = match (any(Answer::Deny), any(Answer::Undecided) || paths.is_empty()) {
            (true, _) => Answer::Deny,
            (false, true) => Answer::Undecided,
            (false, false) => Answer::Allow,
        };
        Explanation {
            api_version: crate::API_VERSION.into(),
            kind: "Explanation".into(),
            from,
            to,
            verdict,
            steps,
            paths,
            missing: Vec::new(),
        }
    }

    /// The explanation for people.
    pub fn text(&self) -> String {
        let mut out = Lines::default();
        out.line(0, format!("{}  {} -> {}", self.verdict, self.from, self.to));
        for step in &self.steps {
            out.line(1, step.clone());
        }
        for path in &self.paths {
            path.write(&mut out, self.paths.len() > 1);
        }
        for missing in &self.missing {
            out.line(1, format!("missing: {missing}"));
        }
        out.0
    }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, depth: usize, text: String) {
        self.0.push_str(&"  ".repeat(depth));
        self.0.push_str(&text);
        self.0.push('\n');
    }
}

impl PathExplanation {
    fn write(&self, out: &mut Lines, is_one_of_several: bool) {
        if is_one_of_several {
            out.line(1, format!("{}  {} -> {}", self.verdict, self.from, self.to));
        }
        for step in &self.steps {
            out.line(1, step.clone());
        }
        out.line(1, self.flow.to_string());
        if let Some(clause) = &self.clause {
            out.line(1, clause.clone());
        } else if self.legs.is_empty() {
            out.line(1, "neither end is a pod: no policy of pods applies".into());
        }
        for stage in &self.stages {
            out.line(1, stage.clone());
        }
        for leg in &self.legs {
            leg.write(out);
        }
        for missing in &self.missing {
            out.line(1, format!("missing: {missing}"));
        }
    }
}

impl LegExplanation {
    fn write(&self, out: &mut Lines) {
        out.line(1, format!("{} of {}: {}: {}", self.direction, self.pod, self.verdict, self.reason));
        if let Some(RulePlace { position: Some(position), .. }) = &self.rule {
            out.line(2, format!("written at {position}"));
        }
        for tier in &self.tiers {
            out.line(2, format!("tier {} (default {}): {}", tier.tier, tier.default_action, tier.outcome));
            for policy in &tier.policies {
                let says = match policy.says {
                    PolicySays::Admits => "admits it",
                    PolicySays::DoesNotAdmit => "does not admit it",
                    PolicySays::Denies => "denies it",
                    PolicySays::Passes => "leaves it to the next tier",
                    PolicySays::NoRules => "has no rules in this direction",
                };
                out.line(3, format!("{} {says}", policy.policy.text()));
                for rule in &policy.rules {
                    out.line(4, rule.text());
                }
            }
        }
        if let Some(nearest) = &self.nearest {
            out.line(2, format!("nearest: {}", nearest.text_with_object()));
        }
        for Bystander { policy, reason } in &self.bystanders {
            out.line(2, format!("not {policy}: {reason}"));
        }
        match self.others {
            0 => {}
            1 => out.line(2, "1 other policy does not apply".into()),
            others => out.line(2, format!("{others} other policies do not apply")),
        }
    }
}

impl RulePlace {
    /// `NetworkPolicy shop/web (web.yaml:3)`.
    fn text(&self) -> String {
        match &self.position {
            Some(position) => format!("{} ({position})", self.object),
            None => self.object.clone(),
        }
    }
}

impl RuleExplanation {
    fn text(&self) -> String {
        let position = self.rule.position.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
        match self.failed.is_empty() {
            true => format!("* {} {}{position} matches", self.action, self.rule.path),
            false => format!("- {} {}{position}: {}", self.action, self.rule.path, self.failures()),
        }
    }

    fn text_with_object(&self) -> String {
        let position = self.rule.position.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
        format!("{} {} {}{position}: {}", self.action, self.rule.object, self.rule.path, self.failures())
    }

    /// Why it does not match.
    pub fn failures(&self) -> String {
        let one = |failed: &Failed| match (&*failed.needs, &*failed.found) {
            ("", "") => format!("{} does not match", failed.criterion),
            (needs, found) => format!("{} needs {needs}; it is {found}", failed.criterion),
        };
        self.failed.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}
