//! Findings: what is noteworthy about an object, and the registry of their codes (semantics 7.2, 8.4).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_model::{ObjectKey, Position};

use crate::state::State;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    /// The object means what it says, but perhaps not what its author thinks.
    Warning,
    /// A part or the whole of the object is not in force.
    Error,
}

macro_rules! codes {
    ($($code:ident $severity:ident $state:ident $title:literal;)*) => {
        /// The code of a finding. SL10xx lint, SL20xx invalid, SL21xx unsupported, SL22xx warnings, SL23xx portability,
        /// SL30xx dataplane and node, SL40xx API and rights.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $(#[doc = $title] $code,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &[Code] = &[$(Code::$code,)*];

            /// `SL2003`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$code => stringify!($code),)* }
            }

            /// One line that names the condition.
            pub fn title(self) -> &'static str {
                match self { $(Code::$code => $title,)* }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Code::$code => Severity::$severity,)* }
            }

            /// The state that an object with this finding is in (semantics 7.1).
            pub fn state(self) -> State {
                match self { $(Code::$code => State::$state,)* }
            }
        }
    };
}

codes! {
    SL1001 Warning Programmed "the rule admits everyone";
    SL1002 Warning Programmed "a direction without rules denies everything in it";
    SL1003 Warning Programmed "from, to or ports is there and empty, which means all";
    SL1004 Warning Programmed "policyTypes is left out";
    SL1005 Warning Programmed "rules of a direction that types does not name have no effect";
    SL1006 Warning Programmed "a rule without ports opens every port and protocol";
    SL1010 Warning Programmed "a policy without rules decides nothing, at any order";
    SL1011 Warning Programmed "a podSelector without namespaceSelector looks at its own namespace only";
    SL1012 Warning Programmed "an extra dash makes OR out of AND";
    SL1013 Warning Programmed "an empty selector means pods only, not everyone";
    SL1014 Warning Programmed "a selector contradicts itself";
    SL1015 Warning SelectsNothing "the policy selects no pod";
    SL1016 Warning Programmed "a label is unknown, but close to one that exists";
    SL1017 Warning Programmed "trust rests on a label that imitates the namespace's name";
    SL1018 Warning Programmed "a rule or peer matches nothing now";
    SL1021 Warning Programmed "egress is isolated without DNS";
    SL1022 Warning Programmed "the port is a Service's port, the pods listen elsewhere";
    SL1024 Warning Programmed "the rule says TCP, the pods serve the port by another protocol";
    SL1025 Warning Programmed "a port range says nothing, or everything";
    SL1033 Warning Programmed "the CIDR is the address of a pod";
    SL1034 Warning Programmed "the CIDR holds Service addresses, which no rule ever sees";
    SL1036 Warning Programmed "everywhere is named in one family, the pods have both";
    SL1041 Warning NoEffect "no effect: what is left without it decides the same";
    SL1042 Warning SelectsNothing "the policy selects hostNetwork pods only";
    SL1043 Warning Programmed "a controller keeps the object, an edit is reverted";
    SL1044 Warning Shadowed "earlier rules decide all that the rule matches";
    SL1045 Warning Programmed "without order the policy stands after NetworkPolicies and cannot override them";
    SL1046 Warning Programmed "no policy is in the tier";
    SL2001 Error Rejected "a peer without member";
    SL2002 Error Rejected "ipBlock beside another peer member";
    SL2003 Error Rejected "invalid CIDR";
    SL2004 Error Rejected "except is not a strict subset of cidr";
    SL2005 Error Rejected "invalid port, end port or protocol";
    SL2006 Error Rejected "a selector does not parse";
    SL2007 Error Rejected "ports need a protocol that has ports";
    SL2008 Error Rejected "ICMP criteria do not fit the protocol";
    SL2009 Error Rejected "fields that exclude each other";
    SL2010 Error Rejected "a built-in tier has fixed values";
    SL2011 Error Rejected "a ClusterNetworkPolicy member is not understood";
    SL2012 Error Rejected "subject, tier or priority cannot be read";
    SL2013 Error Rejected "the object cannot be decoded";
    SL2101 Error Unsupported "HTTP match is not enforced";
    SL2102 Error Unsupported "domainNames needs DNS watching";
    SL2103 Error Unsupported "doNotTrack on interface *";
    SL2104 Error Unsupported "the kernel lacks a feature or is at a limit";
    SL2201 Warning Programmed "types defaulted";
    SL2202 Warning Programmed "the tier does not exist";
    SL2203 Warning Programmed "same tier and order as another policy";
    SL2204 Warning Programmed "a named object is absent";
    SL2205 Warning Programmed "the policy leaves host endpoints only failsafes";
    SL2206 Warning Programmed "a criterion is read in a way that may surprise";
    SL2207 Warning Programmed "the kind is superseded by ClusterNetworkPolicy";
    SL2208 Warning Programmed "label and annotation name different projects";
    SL2209 Warning Programmed "the namespace is in no project";
    SL2301 Warning Programmed "depends on ipBlock matching pod and node addresses";
    SL2302 Warning Programmed "depends on policy between a pod and its own node";
    SL2303 Warning Programmed "depends on whose address a NodePort or load balancer client shows";
    SL2304 Warning Programmed "depends on how a pod is judged that reaches itself through a Service";
    SL2305 Warning Programmed "depends on whether a negative namespaceSelector matches what has no namespace";
    SL3001 Error Quarantined "the kernel refused a rule";
    SL3002 Error Unsupported "the kernel state differs from the plan";
    SL3003 Warning Programmed "no agent reports for a node";
    SL4001 Error NotEvaluated "a kind cannot be read from the API";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One finding about one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of finding.
    pub code: Code,
    /// The object.
    pub object: ObjectKey,
    /// The field, e.g. `spec.egress[0].to[0].ipBlock.cidr`.
    pub path: Arc<str>,
    /// Where it was written, if it came from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = &self.position {
            write!(f, "{position}: ")?;
        }
        write!(f, "{} {}: {}: {}", self.code, self.object, self.path, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}
