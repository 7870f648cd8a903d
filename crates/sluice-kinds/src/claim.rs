//! ConnectivityClaim: a sentence about reachability that can be checked (semantics 8.3).

use std::sync::Arc;

use serde_json::Value;
use sluice_addr::{Cidr, Family, PortRange, Protocol};
use sluice_model::{ObjectKey, PortMatch};
use sluice_report::{Claim, ClaimEnd, ClaimPort, Expect};
use sluice_selector::LabelSelector;

use crate::admission::{Errors, FieldError};
use crate::field::Field;
use crate::kinds;
use crate::names::{PORT_RANGE, port_name_problems};

const EXPECT: [(&str, Expect); 4] = [
    ("Allow", Expect::Allow),
    ("Deny", Expect::Deny),
    ("AllowOnly", Expect::AllowOnly),
    ("ReachOnly", Expect::ReachOnly),
];

/// Reads a claim that [`crate::default`] may or may not have passed. All errors are reported together.
pub fn read_claim(value: &Value) -> Result<Claim, Vec<FieldError>> {
    let root = Field::root(value);
    let spec = root.get("spec");
    let mut errors = Errors::default();
    let namespace: Arc<str> = root.at(&["metadata", "namespace"]).nonempty().unwrap_or("default").into();
    let mut reader = ClaimReader { errors: &mut errors, namespace: namespace.clone() };
    let text = reader.text(&spec.get("text")).unwrap_or_default();
    let from = reader.ends(&spec.get("from"));
    let to = reader.ends(&spec.get("to"));
    let ports = reader.list(&spec.get("ports"), ClaimReader::port);
    let families = reader.list(&spec.get("families"), ClaimReader::family);
    let stated_reason = reader.list(&spec.get("statedReason"), ClaimReader::stated_object);
    let expect = reader.expect(&spec.get("expect"));
    let future_pods = reader.flag(&spec.get("futurePods"), true);
    if expect == Some(Expect::AllowOnly) && ports.is_empty() && spec.get("ports").is_null() {
        errors.required("spec.ports", "AllowOnly needs the ports that are allowed");
    }
    match expect {
        Some(expect) if errors.list.is_empty() => {
            let name = root.at(&["metadata", "name"]).nonempty().unwrap_or_default().into();
            Ok(Claim {
                namespace,
                name,
                text: text.into(),
                from,
                to,
                ports,
                expect,
                families,
                future_pods,
                stated_reason,
            })
        }
        _ => Err(errors.list),
    }
}

struct ClaimReader<'a> {
    errors: &'a mut Errors,
    namespace: Arc<str>,
}

impl ClaimReader<'_> {
    fn text<'v>(&mut self, field: &Field<'v>) -> Option<&'v str> {
        field.text().unwrap_or_else(|wrong| {
            self.errors.invalid(field, format!("expected {}", wrong.expected));
            None
        })
    }

    fn list<T>(&mut self, field: &Field<'_>, read: fn(&mut Self, &Field<'_>) -> Option<T>) -> Vec<T> {
        match field.items() {
            Ok(items) => items.iter().filter_map(|item| read(self, item)).collect(),
            Err(wrong) => {
                self.errors.invalid(field, format!("expected {}", wrong.expected));
                Vec::new()
            }
        }
    }

    fn flag(&mut self, field: &Field<'_>, absent: bool) -> bool {
        match field.value {
            Value::Null => absent,
            Value::Bool(flag) => *flag,
            _ => {
                self.errors.invalid(field, "expected true or false");
                absent
            }
        }
    }

    fn expect(&mut self, field: &Field<'_>) -> Option<Expect> {
        if field.is_null() {
            self.errors.required(&field.path, "one of Allow, Deny, AllowOnly, ReachOnly");
            return None;
        }
        let found = EXPECT.iter().find(|(name, _)| field.value.as_str() == Some(name));
        if found.is_none() {
            self.errors.not_supported(field, &EXPECT.map(|(name, _)| name));
        }
        found.map(|(_, expect)| *expect)
    }

    fn ends(&mut self, field: &Field<'_>) -> Vec<ClaimEnd> {
        let ends = self.list(field, Self::end);
        if field.is_null() || field.value.as_array().is_some_and(Vec::is_empty) {
            self.errors.required(&field.path, "at least one member");
        }
        ends
    }

    fn end(&mut self, field: &Field<'_>) -> Option<ClaimEnd> {
        let given = |name: &str| !field.get(name).is_null();
        let forms = [
            given("namespaceSelector") || given("podSelector"),
            given("cidr"),
            given("outside"),
            given("nodes"),
            given("service"),
        ];
        if field.object().is_err() || forms.iter().filter(|form| **form).count() != 1 {
            let detail = "exactly one of namespaceSelector/podSelector, cidr, outside, nodes, service";
            self.errors.invalid(field, detail);
            return None;
        }
        if given("except") && !forms[1] {
            self.errors.forbidden(&field.get("except").path, "may only be specified with cidr");
        }
        match forms {
            [true, ..] => {
                let pods = self.selector(&field.get("podSelector"));
                let namespaces = match given("namespaceSelector") {
                    true => self.selector(&field.get("namespaceSelector")),
                    false => {
                        Some(LabelSelector::of([("kubernetes.io/metadata.name", self.namespace.clone())]))
                    }
                };
                Some(ClaimEnd::Pods { namespaces: namespaces?, pods: pods? })
            }
            [_, true, ..] => self.block(field),
            [_, _, true, ..] => {
                let outside = field.get("outside");
                if !outside.is_true() {
                    self.errors.invalid(&outside, "must be true");
                }
                Some(ClaimEnd::Outside)
            }
            [_, _, _, true, _] => self.selector(&field.get("nodes")).map(ClaimEnd::Nodes),
            _ => {
                let service = field.get("service");
                let (name, namespace) = (service.get("name").nonempty(), service.get("namespace").nonempty());
                if name.is_none() {
                    self.errors.required(&service.get("name").path, "");
                }
                let namespace = namespace.map_or_else(|| self.namespace.clone(), Arc::from);
                name.map(|name| ClaimEnd::Service { namespace, name: name.into() })
            }
        }
    }

    fn selector(&mut self, field: &Field<'_>) -> Option<LabelSelector> {
        if field.is_null() {
            return Some(LabelSelector::all());
        }
        match serde_json::from_value::<LabelSelector>(field.value.clone()) {
            Ok(selector) => {
                for problem in selector.problems() {
                    self.errors.invalid_value(
                        &format!("{}.{}", field.path, problem.path),
                        field.value,
                        problem.message,
                    );
                }
                Some(selector)
            }
            Err(error) => {
                self.errors.invalid(field, error.to_string());
                None
            }
        }
    }

    fn cidr(&mut self, field: &Field<'_>) -> Option<Cidr> {
        match field.value.as_str().unwrap_or_default().parse::<Cidr>() {
            Ok(cidr) => Some(cidr),
            Err(error) => {
                self.errors.invalid(field, error.to_string());
                None
            }
        }
    }

    fn block(&mut self, field: &Field<'_>) -> Option<ClaimEnd> {
        let cidr = self.cidr(&field.get("cidr"));
        let mut except = Vec::new();
        for item in field.get("except").items().unwrap_or_default() {
            let Some(inner) = self.cidr(&item) else { continue };
            if cidr.is_some_and(|cidr| !cidr.contains_cidr(inner) || cidr == inner) {
                self.errors.invalid(&item, "must be a strict subset of `cidr`");
            }
            except.push(inner);
        }
        Some(ClaimEnd::Cidr { cidr: cidr?, except })
    }

    fn port(&mut self, field: &Field<'_>) -> Option<ClaimPort> {
        let (protocol, port, end) = (field.get("protocol"), field.get("port"), field.get("endPort"));
        let read = match protocol.value {
            Value::Null => Some(Protocol::TCP),
            Value::String(text) => text.parse().ok(),
            other => other.as_u64().and_then(|n| u8::try_from(n).ok()).filter(|n| *n > 0).map(Protocol),
        };
        let Some(read) = read else {
            self.errors.invalid(&protocol, "use TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6 or 1-255");
            return None;
        };
        if !port.is_null() && !read.has_ports() {
            self.errors.forbidden(&port.path, format!("protocol {read} has no ports"));
            return None;
        }
        let number =
            |field: &Field<'_>| field.value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
        let matched = match port.value {
            Value::Null if end.is_null() => PortMatch::Any,
            Value::Null => {
                self.errors.invalid(&end, "may not be specified when `port` is not specified");
                return None;
            }
            Value::String(name) => {
                if let Some(problem) = port_name_problems(name).first() {
                    self.errors.invalid(&port, *problem);
                }
                if !end.is_null() {
                    self.errors.invalid(&end, "may not be specified when `port` is non-numeric");
                }
                PortMatch::Named(name.as_str().into())
            }
            _ => {
                let Some(first) = number(&port) else {
                    self.errors.invalid(&port, PORT_RANGE);
                    return None;
                };
                let last = if end.is_null() { Some(first) } else { number(&end) };
                match last.and_then(|last| PortRange::new(first, last).ok()) {
                    Some(range) => PortMatch::Range(range),
                    None => {
                        self.errors
                            .invalid(&end, "must be greater than or equal to `port`, and at most 65535");
                        return None;
                    }
                }
            }
        };
        Some(ClaimPort { protocol: read, port: matched })
    }

    fn family(&mut self, field: &Field<'_>) -> Option<Family> {
        let found = Family::BOTH.into_iter().find(|family| field.value.as_str() == Some(&family.to_string()));
        if found.is_none() {
            self.errors.not_supported(field, &["IPv4", "IPv6"]);
        }
        found
    }

    fn stated_object(&mut self, field: &Field<'_>) -> Option<ObjectKey> {
        let kind = field.get("kind").nonempty().unwrap_or_default();
        let group = field.get("group").nonempty();
        // `NetworkPolicy` alone is Kubernetes' own; kinds that only Calico has need no group
        let groups = [group.unwrap_or("networking.k8s.io"), group.unwrap_or(kinds::CALICO)];
        let info =
            groups.iter().find_map(|group| kinds::find(group, kind)).filter(|info| info.model.is_some());
        let (Some(info), Some(name)) = (info, field.get("name").nonempty()) else {
            self.errors.invalid(field, "expected kind and name of a policy");
            return None;
        };
        let namespace: Arc<str> = match (info.namespaced, field.get("namespace").nonempty()) {
            (false, _) => "".into(),
            (true, Some(namespace)) => namespace.into(),
            (true, None) => self.namespace.clone(),
        };
        info.model.map(|kind| ObjectKey::new(kind, namespace, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, load};

    fn read(spec: &str) -> Result<Claim, String> {
        let text = format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: ConnectivityClaim\nmetadata: {{name: c, namespace: m}}\nspec: {spec}\n"
        );
        let loaded = load([("f", text.as_bytes())], "default", &Limits::FILE);
        assert_eq!(loaded.errors, [], "{spec}");
        assert_eq!(loaded.objects[0].strict_problems(), [""; 0], "{spec}");
        read_claim(&loaded.objects[0].value)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn claims_are_read() {
        let claim = read(
            "{text: t, from: [{podSelector: {}}], to: [{outside: true}, {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, \
             {nodes: {}}, {service: {name: dns}}, {namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}], \
             ports: [{port: 80}, {protocol: UDP, port: 1000, endPort: 2000}, {protocol: ICMP}, {port: web}], \
             expect: AllowOnly, families: [IPv4], futurePods: false, statedReason: [{kind: NetworkPolicy, name: a}, \
             {kind: GlobalNetworkPolicy, name: b}]}",
        )
        .unwrap();
        let own = LabelSelector::of([("kubernetes.io/metadata.name", "m")]);
        assert_eq!(claim.from, [ClaimEnd::Pods { namespaces: own, pods: LabelSelector::all() }]);
        assert_eq!(claim.to[0], ClaimEnd::Outside);
        assert_eq!(claim.to[3], ClaimEnd::Service { namespace: "m".into(), name: "dns".into() });
        let ports: Vec<String> = claim.ports.iter().map(|p| format!("{} {:?}", p.protocol, p.port)).collect();
        assert_eq!(ports.len(), 4);
        assert!(ports[2].starts_with("ICMP Any"), "{ports:?}");
        assert_eq!((claim.expect, claim.future_pods), (Expect::AllowOnly, false));
        let reasons: Vec<String> = claim.stated_reason.iter().map(ToString::to_string).collect();
        assert_eq!(reasons, ["NetworkPolicy m/a", "GlobalNetworkPolicy b"]);
        let json = serde_json::to_value(&claim).unwrap();
        assert_eq!(serde_json::from_value::<Claim>(json).unwrap(), claim);
    }

    #[test]
    fn bad_claims_are_refused_with_every_reason() {
        for (spec, expected) in [
            (
                "{}",
                "spec.from: Required value: at least one member\nspec.to: Required value: at least one member\nspec.expect: Required value: one of Allow, Deny, AllowOnly, ReachOnly",
            ),
            (
                "{from: [{outside: true, cidr: 1.2.3.4/32}], to: [{outside: true}], expect: Deny}",
                "spec.from[0]: Invalid value: {\"outside\":true,\"cidr\":\"1.2.3.4/32\"}: exactly one of namespaceSelector/podSelector, cidr, outside, nodes, service",
            ),
            (
                "{from: [{outside: true}], to: [{cidr: 1.2.3.4/33}], expect: Maybe}",
                "spec.to[0].cidr: Invalid value: \"1.2.3.4/33\": invalid CIDR \"1.2.3.4/33\": the prefix of an IPv4 address is at most 32\nspec.expect: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Deny\", \"AllowOnly\", \"ReachOnly\"",
            ),
            (
                "{from: [{outside: true}], to: [{outside: true}], expect: Deny, ports: [{protocol: ICMP, port: 1}, {port: 0}, {port: 5, endPort: 4}]}",
                "spec.ports[0].port: Forbidden: protocol ICMP has no ports\nspec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive\nspec.ports[2].endPort: Invalid value: 4: must be greater than or equal to `port`, and at most 65535",
            ),
            (
                "{from: [{outside: true}], to: [{outside: true}], expect: AllowOnly}",
                "spec.ports: Required value: AllowOnly needs the ports that are allowed",
            ),
        ] {
            assert_eq!(read(spec).unwrap_err(), expected, "{spec}");
        }
    }
}
