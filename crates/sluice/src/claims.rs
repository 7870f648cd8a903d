//! Claims as written → claims as analysis asks them.

use anyhow::{Context, bail};
use sluice_analysis::{Claim, Expectation, Peer};
use sluice_kinds::{ClaimEnd, Expect, LoadedObject};
use sluice_model::PortMatch;

/// Reads one ConnectivityClaim.
pub(crate) fn read(object: &LoadedObject) -> anyhow::Result<Claim> {
    let place = || format!("{}:{}: ConnectivityClaim {}", object.file, object.lines.line(), object.name);
    let claim = match sluice_kinds::read_claim(&object.value) {
        Ok(claim) => claim,
        Err(errors) => {
            let list: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return Err(anyhow::Error::msg(list.join("; "))).with_context(place);
        }
    };
    let mut ports = Vec::new();
    for port in &claim.ports {
        ports.push(match &port.port {
            PortMatch::Any => (port.protocol, None),
            PortMatch::Range(range) => (port.protocol, Some(*range)),
            PortMatch::Named(name) => {
                bail!("{}: named port {name:?} is not judged yet; write its number", place())
            }
        });
    }
    Ok(Claim {
        name: claim.name.clone(),
        text: claim.text.to_string(),
        from: claim.from.iter().map(peer).collect(),
        to: claim.to.iter().map(peer).collect(),
        ports,
        expect: match claim.expect {
            Expect::Allow => Expectation::Allow,
            Expect::Deny => Expectation::Deny,
            Expect::AllowOnly => Expectation::AllowOnly,
            Expect::ReachOnly => Expectation::ReachOnly,
        },
        families: claim.families.clone(),
        future_pods: claim.future_pods,
        stated_reason: claim.stated_reason.clone(),
    })
}

fn peer(end: &ClaimEnd) -> Peer {
    match end {
        ClaimEnd::Pods { namespaces, pods } => {
            Peer::Pods { namespaces: Some(namespaces.clone()), pods: Some(pods.clone()) }
        }
        ClaimEnd::Cidr { cidr, except } => Peer::Addresses { cidr: *cidr, except: except.clone() },
        ClaimEnd::Outside => Peer::Outside,
        ClaimEnd::Nodes(selector) => Peer::Nodes(selector.clone()),
        ClaimEnd::Service { namespace, name } => Peer::Service(namespace.clone(), name.clone()),
    }
}
