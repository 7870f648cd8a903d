//! ProjectIsolation (semantics 8.2), and what Namespaces say of their project.

use serde_json::json;
use sluice_model::Object;

use super::read;
use crate::to_model;

const HEAD: &str = "apiVersion: sluice.dev/v1alpha1\nkind: ProjectIsolation\nmetadata: {name: default}";

#[test]
fn project_isolation_is_read() {
    let isolation = |rest: &str| {
        format!(
            "ProjectIsolation(ProjectIsolation {{ name: \"default\", {rest}, position: Some(Position {{ file: \"f\", line: 1 }}) }})"
        )
    };
    for (spec, expected) in [
        (
            "{mode: 'Off'}",
            isolation("mode: Off, project_key: \"field.cattle.io/projectId\", system_project: None, exempt: [], egress: false, allow_nodes: true"),
        ),
        (
            "{mode: Enforced, projectKey: team, systemProject: p-sys, exempt: [p-1, {project: p-2}, {namespace: ns}], egress: true, allowNodes: false}",
            isolation("mode: Enforced, project_key: \"team\", system_project: Some(Project(\"p-sys\")), exempt: [Project(\"p-1\"), Project(\"p-2\"), Namespace(\"ns\")], egress: true, allow_nodes: false"),
        ),
        // YAML 1.1 reads Off as false
        ("{mode: Off}", "no effect\nSL2013 spec.mode@4 expected Off, Default or Enforced, found false".into()),
        ("{}", "no effect\nSL2013 spec.mode@4 expected Off, Default or Enforced, found nothing".into()),
        ("{mode: 'off'}", "no effect\nSL2013 spec.mode@4 expected Off, Default or Enforced, found \"off\"".into()),
        (
            "{mode: Default, exempt: [{project: p, namespace: ns}]}",
            "no effect\nSL2013 spec.exempt[0]@4 expected a project's value, or exactly one of project, namespace, namespaceSelector; found an object".into(),
        ),
        (
            "{mode: Default, egress: 'true', projectKey: 5}",
            "no effect\nSL2013 spec.projectKey@4 expected a string, found 5\nSL2013 spec.egress@4 expected true or false, found \"true\"".into(),
        ),
    ] {
        assert_eq!(read(&format!("{HEAD}\nspec: {spec}\n")), expected, "{spec}");
    }
    let selector = read(&format!(
        "{HEAD}\nspec: {{mode: Default, systemProject: {{namespaceSelector: {{matchLabels: {{a: b}}}}}}}}\n"
    ));
    assert!(selector.contains("system_project: Some(Namespaces(LabelSelector"), "{selector}");
    let other = HEAD.replace("default", "second");
    assert_eq!(
        read(&format!("{other}\nspec: {{mode: Default}}\n")),
        "no effect\nSL2012 metadata.name@3 the one ProjectIsolation must be named default"
    );
}

/// Annotations that can say a project are kept; documents in annotations are not.
#[test]
fn namespaces_keep_what_may_say_their_project() {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "annotations": {
        "field.cattle.io/projectId": "c-1:p-1",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "long": "x".repeat(257),
    }}});
    let Some(Object::Namespace(namespace)) = to_model(&namespace, None).object else { panic!() };
    assert_eq!(namespace.annotations.iter().collect::<Vec<_>>(), [("field.cattle.io/projectId", "c-1:p-1")]);
}
