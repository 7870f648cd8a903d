//! From a container of a manifest to the process that the lab runs for it.

use std::collections::BTreeMap;

use super::manifest::{Container, Manifest, expand};
use crate::ROLE_COMMAND;
use crate::protocol::ProcessSpec;
use crate::roles::IMAGE_PREFIX;
use crate::sandbox::init::DEFAULT_PATH;

/// What stands in for a container's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StandIn {
    /// The manifest's command, found among the host's programs.
    HostProgram,
    /// An image `sluice.dev/…`, which is what it says.
    Role(String),
    /// An image whose command nobody but the image knows: the built-in server on the declared ports.
    Server(Vec<String>),
    /// The same without declared ports: it idles.
    Idle,
}

impl StandIn {
    pub(crate) fn of(container: &Container) -> Self {
        if !container.command.is_empty() {
            return Self::HostProgram;
        }
        if let Some(name) = container.image.strip_prefix(IMAGE_PREFIX) {
            let name = name.split([':', '@']).next().unwrap_or(name);
            return Self::Role(name.to_owned());
        }
        let ports: Vec<String> = container
            .ports
            .iter()
            .filter(|port| port.container_port != 0)
            .map(|port| (port.container_port, port.protocol.as_deref().unwrap_or("TCP")))
            .filter(|(_, protocol)| matches!(*protocol, "TCP" | "UDP"))
            .map(|(port, protocol)| format!("{port}/{protocol}"))
            .collect();
        if ports.is_empty() { Self::Idle } else { Self::Server(ports) }
    }

    /// A phrase for the pod's status; nothing where the image is really what runs.
    pub(crate) fn note(&self, container: &Container) -> Option<String> {
        let Container { name, image, .. } = container;
        match self {
            Self::Role(_) => None,
            Self::HostProgram => {
                Some(format!("container {name}: the host's programs in place of image {image:?}"))
            }
            Self::Server(ports) => Some(format!(
                "container {name}: the built-in server on {} in place of image {image:?}, which gives its own command",
                ports.join(", ")
            )),
            Self::Idle => Some(format!(
                "container {name}: idle, since image {image:?} is not run and the manifest gives no command"
            )),
        }
    }

    /// Whether the process says itself when it is ready, by its first line of output.
    pub(crate) fn announces_readiness(&self) -> bool {
        !matches!(self, Self::HostProgram)
    }

    fn command(&self, container: &Container, pod: &str) -> Vec<String> {
        let role = |name: &str| vec!["/sluice".to_owned(), ROLE_COMMAND.to_owned(), name.to_owned()];
        match self {
            Self::HostProgram => container.command.clone(),
            Self::Role(name) => role(name),
            Self::Idle => role("pause"),
            Self::Server(ports) => {
                let mut command = role("serve");
                for port in ports {
                    let (number, protocol) = port.split_once('/').unwrap_or((port, "TCP"));
                    command.push(format!("--{}={number}", protocol.to_ascii_lowercase()));
                }
                command.push(format!("--name={pod}"));
                command
            }
        }
    }
}

/// What a process needs to know of its pod's place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) pod_addresses: Vec<String>,
    pub(crate) host_addresses: Vec<String>,
    /// The API server's Service address and port.
    pub(crate) api: Option<(String, u16)>,
}

/// The process of a container. The error is a sentence for the container's status.
pub(crate) fn container_process(
    manifest: &Manifest,
    container: &Container,
    place: &Place,
) -> Result<ProcessSpec, String> {
    let variables = environment(manifest, container, place)?;
    let stand_in = StandIn::of(container);
    let mut argv = stand_in.command(container, &manifest.name);
    if !matches!(stand_in, StandIn::Server(_) | StandIn::Idle) {
        argv.extend(container.args.iter().cloned());
    }
    Ok(ProcessSpec {
        argv: argv.iter().map(|word| expand(word, &variables)).collect(),
        env: variables.into_iter().collect(),
        cwd: container.working_dir.clone().filter(|directory| !directory.is_empty()),
        terminal: container.tty.then_some((24, 80)),
        owns_group: true,
    })
}

fn environment(
    manifest: &Manifest,
    container: &Container,
    place: &Place,
) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::from([
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("HOME".to_owned(), "/root".to_owned()),
        ("HOSTNAME".to_owned(), manifest.hostname().to_owned()),
    ]);
    if container.tty {
        variables.insert("TERM".to_owned(), "xterm".to_owned());
    }
    if let Some((host, port)) = &place.api {
        variables.insert("KUBERNETES_SERVICE_HOST".to_owned(), host.clone());
        variables.insert("KUBERNETES_SERVICE_PORT".to_owned(), port.to_string());
        variables.insert("KUBERNETES_SERVICE_PORT_HTTPS".to_owned(), port.to_string());
    }
    for variable in &container.env {
        let value = match &variable.value_from {
            None => expand(variable.value.as_deref().unwrap_or_default(), &variables),
            Some(source) => {
                let field = source.pointer("/fieldRef/fieldPath").and_then(serde_json::Value::as_str);
                let optional = source
                    .as_object()
                    .is_some_and(|kinds| kinds.values().any(|kind| kind["optional"] == true));
                match field.map(|path| manifest.field(path, &place.pod_addresses, &place.host_addresses)) {
                    Some(Some(value)) => value,
                    Some(None) => return Err(format!("env {}: unknown field {field:?}", variable.name)),
                    None if optional => continue,
                    None => {
                        return Err(format!(
                            "env {}: the lab knows fieldRef only, no values from ConfigMaps, Secrets or resources",
                            variable.name
                        ));
                    }
                }
            }
        };
        variables.insert(variable.name.clone(), value);
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn process(container: Value) -> Result<ProcessSpec, String> {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "u"},
            "spec": {"containers": [container]},
        });
        let manifest = Manifest::read(&pod).unwrap();
        let place = Place {
            pod_addresses: vec!["10.42.0.5".to_owned()],
            api: Some(("10.43.0.1".to_owned(), 443)),
            ..Place::default()
        };
        container_process(&manifest, &manifest.spec.containers[0], &place)
    }

    fn words(container: Value) -> String {
        process(container).unwrap().argv.join(" ")
    }

    #[test]
    fn images_have_stand_ins() {
        assert_eq!(
            words(json!({"image": "debian", "command": ["sh", "-c"], "args": ["exit 0"]})),
            "sh -c exit 0"
        );
        assert_eq!(
            words(
                json!({"image": "sluice.dev/serve:1", "args": ["--tcp", "$(PORT)"], "env": [{"name": "PORT", "value": "80"}]})
            ),
            "/sluice __role serve --tcp 80"
        );
        let nginx = json!({"image": "nginx", "args": ["-g"], "ports": [
            {"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 9, "protocol": "SCTP"}]});
        assert_eq!(words(nginx), "/sluice __role serve --tcp=80 --udp=53 --name=web");
        assert_eq!(words(json!({"image": "nginx"})), "/sluice __role pause");
    }

    #[test]
    fn the_environment_is_the_manifests_and_the_clusters() {
        let spec = process(json!({"image": "x", "command": ["true"], "env": [
            {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$(C)"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "O", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}}]}))
        .unwrap();
        let get = |name: &str| spec.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(get("B"), Some("1$(C)"));
        assert_eq!(get("IP"), Some("10.42.0.5"));
        assert_eq!(get("O"), None);
        assert_eq!(get("HOSTNAME"), Some("web"));
        assert_eq!(get("KUBERNETES_SERVICE_HOST"), Some("10.43.0.1"));
        let error = process(json!({"image": "x", "env": [
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}))
        .unwrap_err();
        assert!(error.contains("Secrets"), "{error}");
    }
}
