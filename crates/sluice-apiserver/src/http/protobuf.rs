//! `application/vnd.kubernetes.protobuf` bodies of the kinds that kubectl sends that way (kubernetes-api 2):
//! client-go's typed clients do so since 0.32 and do not try JSON after a 415.
//!
//! The tables below hold upstream's field numbers. Kinds without a table are still answered 415; pods,
//! nodes and policies take their place here.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Map, Value, json};

use crate::time;

const MAGIC: &[u8] = b"k8s\0";
/// Nesting of messages (kubernetes-api 12).
const MAX_DEPTH: usize = 100;

/// What a field holds.
#[derive(Clone, Copy)]
enum Type {
    Text,
    /// Repeated text.
    Texts,
    Bool,
    /// Integers of every width; a zero is left out where upstream's type is not a pointer.
    Int,
    IntOrZero,
    Message(&'static [Field]),
    Messages(&'static [Field]),
    /// `map<string, string>`.
    TextMap,
    /// `map<string, bytes>`, base64 in JSON.
    BytesMap,
    Time,
    IntOrString,
}

struct Field(u32, &'static str, Type);

use Type::{Bool, BytesMap, Int, IntOrString, IntOrZero, Message, Messages, Text, TextMap, Texts, Time};

const OWNER: &[Field] = &[
    Field(1, "kind", Text),
    Field(3, "name", Text),
    Field(4, "uid", Text),
    Field(5, "apiVersion", Text),
    Field(6, "controller", Bool),
    Field(7, "blockOwnerDeletion", Bool),
];
const METADATA: &[Field] = &[
    Field(1, "name", Text),
    Field(2, "generateName", Text),
    Field(3, "namespace", Text),
    Field(5, "uid", Text),
    Field(6, "resourceVersion", Text),
    Field(7, "generation", Int),
    Field(8, "creationTimestamp", Time),
    Field(9, "deletionTimestamp", Time),
    Field(10, "deletionGracePeriodSeconds", IntOrZero),
    Field(11, "labels", TextMap),
    Field(12, "annotations", TextMap),
    Field(13, "ownerReferences", Messages(OWNER)),
    Field(14, "finalizers", Texts),
];
const CONFIG_MAP: &[Field] = &[
    Field(1, "metadata", Message(METADATA)),
    Field(2, "data", TextMap),
    Field(3, "binaryData", BytesMap),
    Field(4, "immutable", Bool),
];
const NAMESPACE: &[Field] =
    &[Field(1, "metadata", Message(METADATA)), Field(2, "spec", Message(&[Field(1, "finalizers", Texts)]))];
const LOCAL_REFERENCE: &[Field] = &[Field(1, "name", Text)];
const SERVICE_ACCOUNT: &[Field] = &[
    Field(1, "metadata", Message(METADATA)),
    Field(3, "imagePullSecrets", Messages(LOCAL_REFERENCE)),
    Field(4, "automountServiceAccountToken", Bool),
];
const SERVICE_PORT: &[Field] = &[
    Field(1, "name", Text),
    Field(2, "protocol", Text),
    Field(3, "port", IntOrZero),
    Field(4, "targetPort", IntOrString),
    Field(5, "nodePort", Int),
    Field(6, "appProtocol", Text),
];
const SERVICE_SPEC: &[Field] = &[
    Field(1, "ports", Messages(SERVICE_PORT)),
    Field(2, "selector", TextMap),
    Field(3, "clusterIP", Text),
    Field(4, "type", Text),
    Field(5, "externalIPs", Texts),
    Field(7, "sessionAffinity", Text),
    Field(8, "loadBalancerIP", Text),
    Field(9, "loadBalancerSourceRanges", Texts),
    Field(10, "externalName", Text),
    Field(11, "externalTrafficPolicy", Text),
    Field(12, "healthCheckNodePort", Int),
    Field(13, "publishNotReadyAddresses", Bool),
    Field(17, "ipFamilyPolicy", Text),
    Field(18, "clusterIPs", Texts),
    Field(19, "ipFamilies", Texts),
    Field(20, "allocateLoadBalancerNodePorts", Bool),
    Field(22, "internalTrafficPolicy", Text),
];
const SERVICE: &[Field] = &[Field(1, "metadata", Message(METADATA)), Field(2, "spec", Message(SERVICE_SPEC))];
const RESOURCE_ATTRIBUTES: &[Field] = &[
    Field(1, "namespace", Text),
    Field(2, "verb", Text),
    Field(3, "group", Text),
    Field(4, "version", Text),
    Field(5, "resource", Text),
    Field(6, "subresource", Text),
    Field(7, "name", Text),
];
const NON_RESOURCE_ATTRIBUTES: &[Field] = &[Field(1, "path", Text), Field(2, "verb", Text)];
const ACCESS_SPEC: &[Field] = &[
    Field(1, "resourceAttributes", Message(RESOURCE_ATTRIBUTES)),
    Field(2, "nonResourceAttributes", Message(NON_RESOURCE_ATTRIBUTES)),
];
const ACCESS_REVIEW: &[Field] =
    &[Field(1, "metadata", Message(METADATA)), Field(2, "spec", Message(ACCESS_SPEC))];
const SUBJECT_REVIEW: &[Field] = &[Field(1, "metadata", Message(METADATA))];
const PRECONDITIONS: &[Field] = &[Field(1, "uid", Text), Field(2, "resourceVersion", Text)];
const DELETE_OPTIONS: &[Field] = &[
    Field(1, "gracePeriodSeconds", IntOrZero),
    Field(2, "preconditions", Message(PRECONDITIONS)),
    Field(4, "propagationPolicy", Text),
    Field(5, "dryRun", Texts),
];
const UNKNOWN: &[Field] =
    &[Field(1, "typeMeta", Message(&[Field(1, "apiVersion", Text), Field(2, "kind", Text)]))];

fn table(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "ConfigMap" => CONFIG_MAP,
        "DeleteOptions" => DELETE_OPTIONS,
        "Namespace" => NAMESPACE,
        "SelfSubjectAccessReview" => ACCESS_REVIEW,
        "SelfSubjectReview" => SUBJECT_REVIEW,
        "Service" => SERVICE,
        "ServiceAccount" => SERVICE_ACCOUNT,
        _ => return None,
    })
}

/// Why a body was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The bytes are not what protobuf and the envelope promise.
    Malformed(&'static str),
    /// The kind has no table here.
    Unsupported,
}

/// Decodes an envelope and the object in it.
pub(super) fn decode(body: &[u8]) -> Result<Value, Refusal> {
    let envelope = body.strip_prefix(MAGIC).ok_or(Refusal::Malformed("no protobuf envelope"))?;
    let meta = message(envelope, UNKNOWN, 0)?;
    let text =
        |field: &str| meta.pointer(&format!("/typeMeta/{field}")).and_then(Value::as_str).unwrap_or("");
    let (api_version, kind) = (text("apiVersion").to_string(), text("kind").to_string());
    let fields = table(&kind).ok_or(Refusal::Unsupported)?;
    let mut raw: &[u8] = &[];
    let mut rest = envelope;
    while !rest.is_empty() {
        let (number, wire) = next(&mut rest)?;
        if let (2, Wire::Bytes(bytes)) = (number, wire) {
            raw = bytes;
        }
    }
    let mut out = message(raw, fields, 0)?;
    if let Some(map) = out.as_object_mut() {
        map.insert("apiVersion".into(), json!(api_version));
        map.insert("kind".into(), json!(kind));
    }
    Ok(out)
}

/// One field on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(rest: &mut &[u8]) -> Result<u64, Refusal> {
    let mut out = 0_u64;
    for shift in (0..70).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or(Refusal::Malformed("a number is cut off"))?;
        *rest = tail;
        if shift == 63 && *byte > 1 {
            break;
        }
        out |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(out);
        }
    }
    Err(Refusal::Malformed("a number is too long"))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Refusal> {
    let (head, tail) = rest.split_at_checked(length).ok_or(Refusal::Malformed("a field is cut off"))?;
    *rest = tail;
    Ok(head)
}

fn next<'a>(rest: &mut &'a [u8]) -> Result<(u32, Wire<'a>), Refusal> {
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).map_err(|_| Refusal::Malformed("a field number is too large"))?;
    let wire = match key & 7 {
        0 => Wire::Number(varint(rest)?),
        1 => Wire::Bytes(take(rest, 8)?),
        2 => {
            let length =
                usize::try_from(varint(rest)?).map_err(|_| Refusal::Malformed("a length is too large"))?;
            Wire::Bytes(take(rest, length)?)
        }
        5 => Wire::Bytes(take(rest, 4)?),
        _ => return Err(Refusal::Malformed("a wire type is unknown")),
    };
    Ok((number, wire))
}

fn utf8(bytes: &[u8]) -> Result<String, Refusal> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Refusal::Malformed("a text is not UTF-8"))
}

/// Fields without a table entry are dropped.
fn message(mut rest: &[u8], fields: &[Field], depth: usize) -> Result<Value, Refusal> {
    if depth > MAX_DEPTH {
        return Err(Refusal::Malformed("nested too deep"));
    }
    let mut out = Map::new();
    while !rest.is_empty() {
        let (number, wire) = next(&mut rest)?;
        let Some(Field(_, name, ty)) = fields.iter().find(|f| f.0 == number) else { continue };
        let name = (*name).to_string();
        match (ty, wire) {
            // Upstream writes every text that is not a pointer, also the empty ones.
            (Text, Wire::Bytes([])) => {}
            (Text, Wire::Bytes(b)) => drop(out.insert(name, json!(utf8(b)?))),
            (Bool, Wire::Number(n)) => drop(out.insert(name, json!(n != 0))),
            (Int, Wire::Number(0)) => {}
            // Negative numbers are sign-extended to 64 bits on the wire.
            (Int | IntOrZero, Wire::Number(n)) => drop(out.insert(name, json!(n.cast_signed()))),
            (Message(inner), Wire::Bytes(b)) => drop(out.insert(name, message(b, inner, depth + 1)?)),
            (Messages(inner), Wire::Bytes(b)) => {
                let item = message(b, inner, depth + 1)?;
                push(&mut out, name, item);
            }
            (Texts, Wire::Bytes(b)) => {
                let item = json!(utf8(b)?);
                push(&mut out, name, item);
            }
            (TextMap | BytesMap, Wire::Bytes(b)) => {
                let (key, value) = entry(b)?;
                let value =
                    if matches!(ty, TextMap) { json!(utf8(value)?) } else { json!(BASE64.encode(value)) };
                let map = out.entry(name).or_insert_with(|| json!({}));
                map[key] = value;
            }
            (Time, Wire::Bytes(b)) => {
                if let Some(seconds) = seconds(b)? {
                    out.insert(name, json!(time::rfc3339(seconds)));
                }
            }
            (IntOrString, Wire::Bytes(b)) => drop(out.insert(name, int_or_string(b)?)),
            _ => return Err(Refusal::Malformed("a field has another wire type")),
        }
    }
    Ok(Value::Object(out))
}

fn push(out: &mut Map<String, Value>, name: String, item: Value) {
    if let Some(list) = out.entry(name).or_insert_with(|| json!([])).as_array_mut() {
        list.push(item);
    }
}

fn entry(mut rest: &[u8]) -> Result<(String, &[u8]), Refusal> {
    let (mut key, mut value): (String, &[u8]) = (String::new(), &[]);
    while !rest.is_empty() {
        match next(&mut rest)? {
            (1, Wire::Bytes(b)) => key = utf8(b)?,
            (2, Wire::Bytes(b)) => value = b,
            _ => {}
        }
    }
    Ok((key, value))
}

/// An absent time is an empty message.
fn seconds(mut rest: &[u8]) -> Result<Option<i64>, Refusal> {
    let mut out = None;
    while !rest.is_empty() {
        if let (1, Wire::Number(n)) = next(&mut rest)? {
            out = Some(n.cast_signed());
        }
    }
    // Years 0 to 9999, so that the time can be written.
    Ok(out.filter(|s| (-62_167_219_200..253_402_300_800).contains(s)))
}

fn int_or_string(mut rest: &[u8]) -> Result<Value, Refusal> {
    let (mut is_text, mut number, mut text) = (false, 0_i64, String::new());
    while !rest.is_empty() {
        match next(&mut rest)? {
            (1, Wire::Number(n)) => is_text = n == 1,
            (2, Wire::Number(n)) => number = n.cast_signed(),
            (3, Wire::Bytes(b)) => text = utf8(b)?,
            _ => {}
        }
    }
    Ok(if is_text {
        json!(text)
    } else if number == 0 {
        Value::Null
    } else {
        json!(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(kind: &str, object: &[u8]) -> Vec<u8> {
        let meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, object), field(3, b""), field(4, b"")].concat()
    }

    #[test]
    fn a_config_map() {
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let metadata = [field(1, b"name"), field(2, b""), field(8, b""), vec![7 << 3, 0]].concat();
        let body = envelope("ConfigMap", &[field(1, &metadata), field(2, &entry), field(15, b"?")].concat());
        assert_eq!(
            decode(&body).unwrap(),
            json!({"metadata": {"name": "name"}, "data": {"k": "v"}, "apiVersion": "v1", "kind": "ConfigMap"})
        );
    }

    #[test]
    fn hostile_bytes_are_refused() {
        assert_eq!(decode(&envelope("Pod", b"")), Err(Refusal::Unsupported));
        assert!(decode(b"{}").is_err());
        let good = envelope("Service", &field(2, &field(1, &[1 << 3 | 2, 1, b'n', 3 << 3, 80])));
        assert_eq!(decode(&good).unwrap()["spec"]["ports"][0], json!({"name": "n", "port": 80}));
        for cut in 0..good.len() {
            let _ = decode(&good[..cut]);
        }
        for (i, byte) in (0..good.len()).flat_map(|i| [0, 0x7f, 0x80, 0xff].map(|b| (i, b))) {
            let mut bad = good.clone();
            bad[i] = byte;
            let _ = decode(&bad);
        }
        let long = [
            envelope("ConfigMap", b""),
            vec![2 << 3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ]
        .concat();
        assert!(decode(&long).is_err());
    }
}
