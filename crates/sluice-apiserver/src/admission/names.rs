//! Syntax of names, labels and annotations.

/// Total size of all annotation keys and values, in bytes.
pub(crate) const MAX_ANNOTATIONS: usize = 256 * 1024;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
     and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
     alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
     validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
     an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
     must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
     validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn dns_part(text: &str) -> bool {
    let b = text.as_bytes();
    let alnum = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    !b.is_empty() && alnum(b[0]) && alnum(b[b.len() - 1]) && b.iter().all(|&c| alnum(c) || c == b'-')
}

fn loose_part(text: &str) -> bool {
    let b = text.as_bytes();
    !b.is_empty()
        && b[0].is_ascii_alphanumeric()
        && b[b.len() - 1].is_ascii_alphanumeric()
        && b.iter().all(|&c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
}

fn at_most(text: &str, max: usize) -> Result<(), String> {
    if text.len() > max { Err(format!("must be no more than {max} characters")) } else { Ok(()) }
}

/// A DNS-1123 label of at most 63 characters.
pub(crate) fn dns_label(text: &str) -> Result<(), String> {
    at_most(text, 63)?;
    if dns_part(text) { Ok(()) } else { Err(LABEL.into()) }
}

/// A DNS-1035 label of at most 63 characters.
pub(crate) fn dns_1035_label(text: &str) -> Result<(), String> {
    at_most(text, 63)?;
    if dns_part(text) && text.starts_with(|c: char| c.is_ascii_lowercase()) {
        Ok(())
    } else {
        Err(LABEL_1035.into())
    }
}

/// A DNS-1123 subdomain of at most 253 characters.
pub(crate) fn dns_subdomain(text: &str) -> Result<(), String> {
    at_most(text, 253)?;
    if text.split('.').all(dns_part) { Ok(()) } else { Err(SUBDOMAIN.into()) }
}

/// `name` or `prefix/name`, as keys of labels and annotations.
pub(crate) fn label_key(text: &str) -> Result<(), String> {
    let name = match text.split_once('/') {
        Some((prefix, name)) => {
            dns_subdomain(prefix).map_err(|e| format!("prefix part {e}"))?;
            name
        }
        None => text,
    };
    at_most(name, 63).map_err(|e| format!("name part {e}"))?;
    if loose_part(name) { Ok(()) } else { Err(QUALIFIED.into()) }
}

/// Empty, or at most 63 characters of a label value.
pub(crate) fn label_value(text: &str) -> Result<(), String> {
    at_most(text, 63)?;
    if text.is_empty() || loose_part(text) { Ok(()) } else { Err(VALUE.into()) }
}

/// An IANA service name: at most 15 characters, at least one letter, no double hyphen.
pub(crate) fn port_name(text: &str) -> Result<(), String> {
    at_most(text, 15)?;
    if !dns_part(text) {
        return Err("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|c| c.is_ascii_lowercase()) {
        return Err("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        return Err("must not contain consecutive hyphens".into());
    }
    Ok(())
}

/// A path segment that may serve as an object's name at all (kubernetes-api 12).
pub(crate) fn path_segment(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '%', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax() {
        assert!(dns_label("a-1").is_ok() && dns_label("1a").is_ok());
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
            assert!(dns_label(bad).is_err(), "{bad}");
        }
        assert!(dns_subdomain("a.b-c.d").is_ok() && dns_subdomain("a..b").is_err());
        assert!(dns_1035_label("1a").is_err() && dns_1035_label("a1").is_ok());
        assert!(label_key("kubernetes.io/metadata.name").is_ok() && label_key("A_b.c").is_ok());
        for bad in ["", "/a", "a/", "a/b/c", "_a", "Up.io/x"] {
            assert!(label_key(bad).is_err(), "{bad}");
        }
        assert!(label_value("").is_ok() && label_value("a b").is_err());
        assert!(port_name("http").is_ok() && port_name("80").is_err() && port_name("a--b").is_err());
        assert!(!path_segment("..") && path_segment("a"));
    }
}
