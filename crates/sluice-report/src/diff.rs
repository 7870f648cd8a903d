//! What a change opens and closes: the semantic difference of two sets of objects.

use std::fmt;

use serde::{Deserialize, Serialize};

use sluice_model::PodKey;

use crate::answer::AllowedPorts;
use crate::claim::Witness;

/// How much of a direction is open for a pod, whatever selects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Posture {
    /// Everything from or to everyone.
    Open,
    /// Something.
    Limited,
    /// Nothing.
    Closed,
}

impl fmt::Display for Posture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Posture::Open => "open",
            Posture::Limited => "limited",
            Posture::Closed => "closed",
        })
    }
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ChangeKind {
    /// Nothing was allowed, something is.
    Opened,
    /// Something was allowed, nothing is.
    Closed,
    /// Something is and was allowed, and it is not the same.
    Changed,
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChangeKind::Opened => "opened",
            ChangeKind::Closed => "closed",
            ChangeKind::Changed => "changed",
        })
    }
}

/// Ends that a change treats alike, named for people and listed in full for programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndGroup {
    /// The fewest names that say who they are: `namespace shop`, `Deployment shop/web`, `shop/web-1`, `node n1`,
    /// `outside 203.0.113.0/24`.
    pub names: Vec<String>,
    /// The pods; in JSON each is `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "pod_names")]
    pub pods: Vec<PodKey>,
    /// The nodes by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Ranges of other addresses; a pod or node in a range is not meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<String>,
}

impl fmt::Display for EndGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        let shown = self.names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        f.write_str(&shown)?;
        match self.names.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Connections from each end of one group to each of another, all with the same change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionChange {
    /// What became of them.
    pub change: ChangeKind,
    /// The sources.
    pub from: EndGroup,
    /// The destinations.
    pub to: EndGroup,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// What was allowed.
    pub before: Vec<AllowedPorts>,
    /// What is.
    pub after: Vec<AllowedPorts>,
    /// What is allowed and was not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gained: Vec<AllowedPorts>,
    /// What was allowed and is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<AllowedPorts>,
    /// Pairs of ends. Outside ranges that are told apart count as one end each.
    pub pairs: u64,
    /// What is not known of them: host endpoints that may deny what policies of pods allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undecided: Vec<String>,
    /// A packet that is now allowed and was not, or the reverse.
    pub witness: Witness,
}

/// Pods of which one direction is more or less open than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostureChange {
    /// The pods.
    pub ends: EndGroup,
    /// `ingress` or `egress`.
    pub direction: String,
    /// How open it was.
    pub before: Posture,
    /// How open it is.
    pub after: Posture,
}

impl PostureChange {
    /// Was the direction open before, and is it no longer?
    pub fn is_newly_isolated(&self) -> bool {
        self.before == Posture::Open
    }
}

/// What a change opens and closes. Text, order and names of objects do not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectivityDiff {
    /// Always `sluice.dev/v1alpha1`.
    pub api_version: String,
    /// Always `ConnectivityDiff`.
    pub kind: String,
    /// Pods that are new. Their connections are not listed.
    pub added: Vec<String>,
    /// Pods that are gone. Their connections are not listed.
    pub removed: Vec<String>,
    /// Pods of which a direction is more or less open than before.
    pub postures: Vec<PostureChange>,
    /// Connections that changed, opened ones first, those from outside before those of pods.
    pub changes: Vec<ConnectionChange>,
    /// More connections changed than are listed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// What is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undecided: Vec<String>,
}

impl ConnectivityDiff {
    /// A difference that holds nothing yet.
    pub fn new() -> Self {
        ConnectivityDiff {
            api_version: crate::API_VERSION.into(),
            kind: "ConnectivityDiff".into(),
            added: Vec::new(),
            removed: Vec::new(),
            postures: Vec::new(),
            changes: Vec::new(),
            truncated: false,
            undecided: Vec::new(),
        }
    }

    /// Is connectivity the same? Pods that came or went do not count.
    pub fn is_same(&self) -> bool {
        self.changes.is_empty() && self.postures.is_empty()
    }

    /// Pairs with this change.
    pub fn pairs(&self, change: ChangeKind) -> u64 {
        self.changes.iter().filter(|c| c.change == change).map(|c| c.pairs).sum()
    }

    /// The difference for people: one line per group of connections, families that agree together.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        for pod in &self.added {
            line(format!("pod added        {pod}"));
        }
        for pod in &self.removed {
            line(format!("pod removed      {pod}"));
        }
        for posture in &self.postures {
            let PostureChange { ends, direction, before, after } = posture;
            let what = match (before, after) {
                (Posture::Open, _) => "newly isolated",
                (_, Posture::Open) => "not isolated now",
                _ => "posture",
            };
            line(format!("{what:16} {ends}: {direction} was {before}, is {after}"));
        }
        let mut told = vec![false; self.changes.len()];
        for (index, change) in self.changes.iter().enumerate() {
            if told[index] {
                continue;
            }
            let twin = self.changes.iter().enumerate().skip(index + 1).find(|(_, c)| change.is_twin(c));
            let mut families = change.family.clone();
            if let Some((at, twin)) = twin {
                told[at] = true;
                families = format!("{families}, {}", twin.family);
            }
            let what = match change.change {
                ChangeKind::Opened => format!("+ {}", words(&change.after)),
                ChangeKind::Closed => format!("- {}", words(&change.before)),
                ChangeKind::Changed => {
                    let sides = [("+", &change.gained), ("-", &change.lost)].into_iter();
                    let sides = sides.filter(|(_, rows)| !rows.is_empty());
                    sides.map(|(sign, rows)| format!("{sign} {}", words(rows))).collect::<Vec<_>>().join("  ")
                }
            };
            let ConnectionChange { change: kind, from, to, .. } = change;
            let mut text = format!("{kind:16} {from} -> {to}  {what}  ({families})");
            for missing in &change.undecided {
                text.push_str(&format!("\n{:16} {missing}", ""));
            }
            line(text);
        }
        if self.truncated {
            line("more connections changed than are listed".into());
        }
        for missing in &self.undecided {
            line(format!("undecided        {missing}"));
        }
        if self.is_same() && self.undecided.is_empty() {
            line("no connectivity change".into());
        }
        out
    }
}

impl Default for ConnectivityDiff {
    fn default() -> Self {
        Self::new()
    }
}

impl ConnectionChange {
    /// The same change in the other family?
    fn is_twin(&self, other: &Self) -> bool {
        let alike = |a: &[AllowedPorts], b: &[AllowedPorts]| words(a) == words(b);
        self.change == other.change
            && self.family != other.family
            && self.from == other.from
            && self.to == other.to
            && alike(&self.before, &other.before)
            && alike(&self.after, &other.after)
    }
}

/// `everything`, `nothing`, or `TCP 80,443, ICMP`. ICMP stands for the ICMP of the family.
pub fn words(rows: &[AllowedPorts]) -> String {
    if rows.is_empty() {
        return "nothing".into();
    }
    let is_whole = |row: &AllowedPorts| {
        (row.ports.is_empty() || row.ports == [(0, u16::MAX)])
            && row.source_ports.is_empty()
            && row.icmp.is_empty()
    };
    // every protocol with ports, ICMP, and all others
    if rows.len() == 6 && rows.iter().all(is_whole) {
        return "everything".into();
    }
    rows.iter().map(row_words).collect::<Vec<_>>().join(", ")
}

fn row_words(row: &AllowedPorts) -> String {
    let spans = |ranges: &[(u16, u16)]| {
        let span = |(a, b): &(u16, u16)| if a == b { a.to_string() } else { format!("{a}-{b}") };
        ranges.iter().map(span).collect::<Vec<_>>().join(",")
    };
    let mut text = match &*row.protocol {
        "ICMPv6" => "ICMP".to_owned(),
        "other" => "other protocols".to_owned(),
        name => name.to_owned(),
    };
    if !row.ports.is_empty() && row.ports != [(0, u16::MAX)] {
        text = format!("{text} {}", spans(&row.ports));
    }
    if !row.icmp.is_empty() {
        text = format!("{text} {}", row.icmp.join(","));
    }
    if !row.source_ports.is_empty() {
        text = format!("{text} from source ports {}", spans(&row.source_ports));
    }
    text
}

/// Pods as `namespace/name`. They are written one by one, so that a list of all pods of a cluster need not exist as text.
mod pod_names {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;
    use sluice_model::PodKey;

    pub(super) fn serialize<S: Serializer>(pods: &[PodKey], serializer: S) -> Result<S::Ok, S::Error> {
        struct Name<'k>(&'k PodKey);
        impl serde::Serialize for Name<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self.0)
            }
        }
        serializer.collect_seq(pods.iter().map(Name))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PodKey>, D::Error> {
        let key = |name: String| {
            let parts = name.split_once('/').map(|(namespace, pod)| PodKey::new(namespace, pod));
            parts.ok_or_else(|| D::Error::custom(format!("{name} is not NAMESPACE/POD")))
        };
        Vec::<String>::deserialize(deserializer)?.into_iter().map(key).collect()
    }
}
