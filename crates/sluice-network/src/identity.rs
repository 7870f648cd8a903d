//! Who is attached: the pair (container id, interface name), and the names that follow from it.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::NetworkError;

/// Kernel limit: IFNAMSIZ without the final zero.
pub const INTERFACE_NAME_LIMIT: usize = 15;
/// Kernel limit: IFALIASZ without the final zero.
pub const ALIAS_LIMIT: usize = 255;
/// Longest container id that is accepted, in bytes: the identity must fit an `ifalias`.
const CONTAINER_ID_LIMIT: usize = 220;

/// A runtime's id of a pod sandbox: `^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`, at most 220 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// A name that Linux and CNI accept for an interface: 1–15 bytes without `/`, `:` or blanks, not `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

/// An attachment: one interface of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachmentId {
    /// `CNI_CONTAINERID`.
    pub container: ContainerId,
    /// `CNI_IFNAME`: the name inside the pod.
    pub interface: InterfaceName,
}

/// The pod an attachment belongs to, as the runtime names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// UID of the pod; two sandboxes of one name can coexist.
    pub uid: String,
}

impl AttachmentId {
    /// The name of the host end: `prefix` and as many hex digits of SHA-256("<container id>/<ifname>") as fit
    /// 15 bytes (networking 2).
    ///
    /// # Errors
    /// The prefix leaves no room for at least 8 digits, or is no interface name.
    pub fn host_interface(&self, prefix: &str) -> Result<InterfaceName, NetworkError> {
        if prefix.is_empty() || prefix.len() + 8 > INTERFACE_NAME_LIMIT {
            return Err(NetworkError::identity("interface prefix", prefix));
        }
        let digest = Sha256::digest(self.to_string().as_bytes());
        let mut name = prefix.to_owned();
        for byte in digest {
            for digit in [byte >> 4, byte & 15] {
                if name.len() < INTERFACE_NAME_LIMIT {
                    name.push(char::from_digit(u32::from(digit), 16).expect("four bits are one hex digit"));
                }
            }
        }
        InterfaceName::new(&name)
    }

    /// The `ifalias` of the host end: `sluice:<container id>/<ifname> <namespace>/<pod>`, cut at 255 bytes. The
    /// part before the blank identifies the attachment and is never cut.
    #[must_use]
    pub fn alias(&self, pod: Option<&PodRef>) -> String {
        let mut alias = format!("sluice:{self}");
        if let Some(pod) = pod {
            alias.push_str(&format!(" {}/{}", pod.namespace, pod.name));
        }
        let mut end = alias.len().min(ALIAS_LIMIT);
        while !alias.is_char_boundary(end) {
            end -= 1;
        }
        alias.truncate(end);
        alias
    }

    /// The attachment and the `<namespace>/<pod>` of an `ifalias`, if it is one of ours.
    #[must_use]
    pub fn from_alias(alias: &str) -> Option<(Self, Option<(String, String)>)> {
        let rest = alias.strip_prefix("sluice:")?;
        let (identity, pod) = rest.split_once(' ').map_or((rest, None), |(id, pod)| (id, Some(pod)));
        let (container, interface) = identity.split_once('/')?;
        let id = Self {
            container: ContainerId::new(container).ok()?,
            interface: InterfaceName::new(interface).ok()?,
        };
        let pod = pod.and_then(|p| p.split_once('/')).map(|(ns, name)| (ns.to_owned(), name.to_owned()));
        Some((id, pod))
    }
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container, self.interface)
    }
}

impl ContainerId {
    /// Checks `text` against the CNI specification's pattern.
    ///
    /// # Errors
    /// It does not match.
    pub fn new(text: &str) -> Result<Self, NetworkError> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if first && rest && text.len() <= CONTAINER_ID_LIMIT {
            Ok(Self(text.to_owned()))
        } else {
            Err(NetworkError::identity("container id", text))
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl InterfaceName {
    /// Checks `text` against the rules of the kernel and of CNI.
    ///
    /// # Errors
    /// It is no interface name.
    pub fn new(text: &str) -> Result<Self, NetworkError> {
        let plain = !text.is_empty()
            && text.len() <= INTERFACE_NAME_LIMIT
            && !matches!(text, "." | "..")
            && text.chars().all(|c| !matches!(c, '/' | ':' | '\0') && !c.is_whitespace() && !c.is_control());
        if plain { Ok(Self(text.to_owned())) } else { Err(NetworkError::identity("interface name", text)) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = NetworkError;
            fn try_from(text: String) -> Result<Self, NetworkError> {
                Self::new(&text)
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}
text_newtype!(ContainerId);
text_newtype!(InterfaceName);

#[cfg(test)]
mod tests {
    use super::*;

    fn id(container: &str, interface: &str) -> AttachmentId {
        AttachmentId {
            container: ContainerId::new(container).unwrap(),
            interface: InterfaceName::new(interface).unwrap(),
        }
    }

    #[test]
    fn the_host_name_is_the_hash_of_the_pair() {
        // printf abc/eth0 | sha256sum
        let name = id("abc", "eth0").host_interface("slu").unwrap();
        assert_eq!(name.as_str(), "slu538f587a2365");
        assert_eq!(name.as_str().len(), 15);
        assert_ne!(name, id("abc", "eth1").host_interface("slu").unwrap());
        assert!(id("abc", "eth0").host_interface("").is_err());
        assert!(id("abc", "eth0").host_interface("toolongaprefix").is_err());
    }

    #[test]
    fn names_are_checked() {
        for bad in ["", "-a", "a b", "a/b", "ü", ".x", &"a".repeat(221)] {
            assert!(ContainerId::new(bad).is_err(), "{bad}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-bytes-xx"] {
            assert!(InterfaceName::new(bad).is_err(), "{bad}");
        }
        assert!(InterfaceName::new("eth0.7").is_ok());
    }

    #[test]
    fn the_alias_round_trips_and_is_cut() {
        let attachment = id(&"c".repeat(200), "eth0");
        let pod = PodRef { namespace: "ü".repeat(40), name: "p".into(), uid: String::new() };
        let alias = attachment.alias(Some(&pod));
        assert!(alias.len() <= ALIAS_LIMIT && alias.len() > ALIAS_LIMIT - 2, "{}", alias.len());
        assert_eq!(AttachmentId::from_alias(&alias).unwrap().0, attachment);

        let pod = PodRef { namespace: "web".into(), name: "api-0".into(), uid: String::new() };
        let alias = id("abc", "eth0").alias(Some(&pod));
        assert_eq!(alias, "sluice:abc/eth0 web/api-0");
        assert_eq!(
            AttachmentId::from_alias(&alias),
            Some((id("abc", "eth0"), Some(("web".to_owned(), "api-0".to_owned()))))
        );
        assert_eq!(AttachmentId::from_alias("sluice:abc/eth0").unwrap().1, None);
        for foreign in ["", "abc/eth0", "sluice:", "sluice:abc", "sluice:a b/eth0"] {
            assert_eq!(AttachmentId::from_alias(foreign), None, "{foreign}");
        }
    }
}
