//! What only the text shows: spellings that mean something else than they look like, and are gone once the object is read.
//!
//! They are no findings of conversion, because nothing about the object's meaning is in doubt; lint tells them
//! (SL1003, SL1004, SL1025, SL1043).

use serde_json::Value;
use sluice_model::{Kind, Position};
use sluice_report::{Code, Finding};

use crate::convert::{has_rules, model_key};
use crate::field::Field;
use crate::load::LoadedObject;

impl LoadedObject {
    /// What lint says of the way in which a policy is written, in the order of its fields. Nothing for other kinds.
    pub fn written_findings(&self) -> Vec<Finding> {
        let Some(key) = model_key(&self.value) else { return Vec::new() };
        let kind = key.kind;
        if !kind.is_enforced_policy() && kind.staged_for().is_none() {
            return Vec::new();
        }
        let root = Field::root(&self.value);
        let spec = root.get("spec");
        let mut found = Vec::new();
        let mut find = |code, path: &str, message: String, hint: &str| {
            found.push(Finding {
                code,
                object: key.clone(),
                path: path.into(),
                position: Some(Position { file: self.file.clone(), line: self.lines.line_of(path) }),
                message,
                hint: Some(hint.to_owned()),
            });
        };
        managed(&root, &mut find);
        let is_kubernetes =
            matches!(kind, Kind::KubernetesNetworkPolicy | Kind::StagedKubernetesNetworkPolicy);
        if is_kubernetes {
            omitted_types(&spec, &mut find);
        }
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in spec.get(direction).items().unwrap_or_default() {
                if is_kubernetes {
                    empty_lists(&rule, peers, &mut find);
                }
                ranges_of_one(&rule, &mut find);
            }
        }
        found
    }
}

type Find<'f> = dyn FnMut(Code, &str, String, &str) + 'f;

/// An object of a live cluster that somebody else writes (SL1043). In a file the same marks only say where it came from.
fn managed(root: &Field<'_>, find: &mut Find<'_>) {
    const LABELS: [&str; 4] = [
        "app.kubernetes.io/managed-by",
        "cattle.io/creator",
        "argocd.argoproj.io/instance",
        "kustomize.toolkit.fluxcd.io/name",
    ];
    let metadata = root.get("metadata");
    if metadata.get("uid").nonempty().is_none() {
        return;
    }
    let hint = "change what the controller writes it from";
    for owner in metadata.get("ownerReferences").items().unwrap_or_default() {
        if owner.get("controller").is_true() {
            let text = |name| owner.get(name).nonempty().unwrap_or_default().to_owned();
            let message =
                format!("{} {:?} controls the object: an edit will be reverted", text("kind"), text("name"));
            return find(Code::SL1043, &owner.path, message, hint);
        }
    }
    let labels = metadata.get("labels");
    if let Some((label, value)) =
        LABELS.iter().find_map(|name| Some((labels.get(name), labels.get(name).nonempty()?)))
    {
        let message = format!("the object is kept by {value:?}, as its labels say: an edit may be reverted");
        find(Code::SL1043, &label.path, message, hint);
    }
}

/// `policyTypes` left out: what it is read as (SL1004; semantics 2.1, 2.2).
fn omitted_types(spec: &Field<'_>, find: &mut Find<'_>) {
    let types = spec.get("policyTypes");
    let is_blank = match types.value {
        Value::Null => true,
        Value::Array(types) => types.is_empty(),
        _ => false,
    };
    if !is_blank || spec.object().is_err() {
        return;
    }
    let (ingress, egress) = (spec.get("ingress"), spec.get("egress"));
    let message = match (has_rules(ingress.value), has_rules(egress.value)) {
        (_, true) if !has_rules(ingress.value) => {
            "policyTypes is read as [Ingress, Egress]: all ingress of the selected pods is denied too"
        }
        (_, true) => "policyTypes is read as [Ingress, Egress]",
        (false, false) if !egress.is_null() => {
            "policyTypes is read as [Ingress]: all ingress is denied, and egress stays open, because an empty list is no rule"
        }
        (false, false) => "policyTypes is read as [Ingress]: all ingress of the selected pods is denied",
        (true, false) if !egress.is_null() => {
            "policyTypes is read as [Ingress]: egress stays open, because an empty list is no rule"
        }
        (true, false) => "policyTypes is read as [Ingress]",
    };
    find(Code::SL1004, &types.path, message.to_owned(), "write policyTypes");
}

/// `from`, `to` or `ports` that is there and empty, which means the same as leaving it out (SL1003; semantics 2.1).
fn empty_lists(rule: &Field<'_>, peers: &str, find: &mut Find<'_>) {
    for (name, means) in [(peers, "every address"), ("ports", "every protocol and port")] {
        let field = rule.get(name);
        if field.value.as_array().is_some_and(Vec::is_empty) {
            let message = format!("{name} is an empty list, which means {means}, not none");
            let hint = format!("leave {name} out if that is meant; to admit nothing remove the rule");
            find(Code::SL1003, &field.path, message, &hint);
        }
    }
}

/// A range of one port (SL1025).
fn ranges_of_one(rule: &Field<'_>, find: &mut Find<'_>) {
    for port in rule.get("ports").items().unwrap_or_default() {
        let end = port.get("endPort");
        if !end.is_null() && end.value == port.get("port").value {
            let message = format!("endPort equals port: the range is port {} alone", end.value);
            find(Code::SL1025, &end.path, message, "leave endPort out, or write the last port of the range");
        }
    }
    for side in ["source", "destination"] {
        for list in ["ports", "notPorts"] {
            for port in rule.at(&[side, list]).items().unwrap_or_default() {
                let range = port.value.as_str().and_then(|text| text.split_once(':'));
                if let Some((first, last)) = range.filter(|(first, last)| first == last) {
                    let message = format!("{first}:{last} is port {first} alone");
                    find(
                        Code::SL1025,
                        &port.path,
                        message,
                        "write the one port, or the last port of the range",
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Limits, load};

    /// The findings of a NetworkPolicy with this spec, as lines.
    fn said(spec: &str) -> String {
        let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n";
        lines(&format!("{head}{spec}"))
    }

    fn lines(text: &str) -> String {
        let loaded = load([("p.yaml", text.as_bytes())], "x", &Limits::FILE);
        assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
        let found = loaded.objects.iter().flat_map(|object| object.written_findings());
        let line = |position: Option<sluice_model::Position>| position.unwrap().line;
        found.map(|f| format!("{} {}@{} {}\n", f.code, f.path, line(f.position.clone()), f.message)).collect()
    }

    #[test]
    fn types_that_are_left_out() {
        let ingress = "policyTypes is read as [Ingress]";
        let cases = [
            ("  podSelector: {}", format!("{ingress}: all ingress of the selected pods is denied")),
            (
                "  policyTypes: []\n  egress: []",
                format!(
                    "{ingress}: all ingress is denied, and egress stays open, because an empty list is no rule"
                ),
            ),
            ("  ingress: [{}]", ingress.to_owned()),
            (
                "  ingress: [{}]\n  egress: []",
                format!("{ingress}: egress stays open, because an empty list is no rule"),
            ),
            (
                "  egress: [{}]",
                "policyTypes is read as [Ingress, Egress]: all ingress of the selected pods is denied too"
                    .to_owned(),
            ),
            ("  ingress: [{}]\n  egress: [{}]", "policyTypes is read as [Ingress, Egress]".to_owned()),
        ];
        for (spec, message) in cases {
            let found = said(spec);
            assert!(found.starts_with("SL1004 spec.policyTypes@"), "{spec}: {found}");
            assert_eq!(found.lines().count(), 1, "{spec}: {found}");
            assert!(found.ends_with(&format!(" {message}\n")), "{spec}: {found}");
        }
        assert_eq!(said("  policyTypes: [Egress]\n  podSelector: {}"), "");
    }

    #[test]
    fn lists_and_ranges() {
        let rules = "  policyTypes: [Ingress, Egress]\n  ingress:\n  - from: []\n    ports: [{port: 80, endPort: 80}]\n  \
                     egress:\n  - to: [{podSelector: {}}]\n    ports: []\n";
        assert_eq!(
            said(rules),
            "SL1003 spec.ingress[0].from@7 from is an empty list, which means every address, not none\n\
             SL1025 spec.ingress[0].ports[0].endPort@8 endPort equals port: the range is port 80 alone\n\
             SL1003 spec.egress[0].ports@11 ports is an empty list, which means every protocol and port, not none\n"
        );
        let calico = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: p}\nspec:\n  types: \
                      [Ingress]\n  ingress: [{action: Allow, protocol: TCP, destination: {ports: [80, '90:90', '1:2']}}]\n";
        assert_eq!(lines(calico), "SL1025 spec.ingress[0].destination.ports[1]@6 90:90 is port 90 alone\n");
    }

    #[test]
    fn objects_that_a_controller_keeps() {
        let object = |metadata: &str| {
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p{metadata}}}\nspec: {{policyTypes: \
                 [Ingress]}}\n"
            )
        };
        let owner = ", ownerReferences: [{kind: App, name: shop, controller: true}]";
        assert_eq!(
            lines(&object(&format!(", uid: u{owner}"))),
            "SL1043 metadata.ownerReferences[0]@3 App \"shop\" controls the object: an edit will be reverted\n"
        );
        assert_eq!(lines(&object(owner)), "", "in a file the mark only says where it came from");
        assert_eq!(lines(&object(", uid: u, labels: {app: web}")), "");
    }

    #[test]
    fn other_kinds_and_wrong_types_say_nothing() {
        assert_eq!(lines("apiVersion: v1\nkind: Pod\nmetadata: {name: p, uid: u}\n"), "");
        let calico =
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: p}\nspec: ";
        for spec in [
            "{}",
            "null",
            "{types: [Ingress], ingress: []}",
            "{ingress: [{action: Deny, source: {ports: []}}]}",
        ] {
            assert_eq!(lines(&format!("{calico}{spec}\n")), "", "{spec}");
        }
    }
}
