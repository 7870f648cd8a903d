//! Namespaces that project isolation leaves out (SL2208, SL2209; semantics 8.2).

use sluice_model::{Kind, ObjectKey, ProjectMatch, ProjectNotice, ProjectPolicies};
use sluice_report::Code;

use super::Lint;

pub(super) fn find(lint: &mut Lint<'_>) {
    for notice in ProjectPolicies::of(lint.world).notices {
        let about = |namespace| ObjectKey::new(Kind::Namespace, "", namespace);
        match notice {
            ProjectNotice::Disagreement { namespace, label, annotation } => {
                let label = label.map_or_else(|| "absent".to_owned(), |label| format!("{label:?}"));
                let message = format!(
                    "the project's label is {label} and its annotation {annotation:?}: the namespace counts as in no project"
                );
                let hint = "let Rancher set both, or write the same value";
                lint.add_about(
                    Code::SL2208,
                    about(namespace),
                    "metadata.labels",
                    None,
                    message,
                    Some(hint.into()),
                );
            }
            ProjectNotice::NoProject { namespace } if is_exempt(lint, &namespace) => {}
            ProjectNotice::NoProject { namespace } => {
                let message =
                    "the namespace is in no project: it is neither isolated nor admitted to one".to_owned();
                let hint = "move it into a project, or exempt it in the ProjectIsolation";
                lint.add_about(
                    Code::SL2209,
                    about(namespace),
                    "metadata.labels",
                    None,
                    message,
                    Some(hint.into()),
                );
            }
        }
    }
}

/// Whoever exempts a namespace knows that it is not isolated.
fn is_exempt(lint: &Lint<'_>, namespace: &str) -> bool {
    let exempt = lint.world.isolations.values().flat_map(|isolation| &isolation.exempt);
    exempt.into_iter().any(|one| match one {
        ProjectMatch::Namespace(name) => **name == *namespace,
        ProjectMatch::Namespaces(selector) => selector.matches(&lint.world.namespace_labels(namespace)),
        ProjectMatch::Project(_) => false,
    })
}
