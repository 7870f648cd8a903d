//! The upgrade of a request to a WebSocket (RFC 6455 4.2).

use base64::Engine;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
};

use super::Protocol;
use crate::status::Status;

/// An upgrade that can be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// The chosen subprotocol.
    pub protocol: Protocol,
    accept: String,
}

impl Handshake {
    /// The 101 answer, without a body.
    pub fn response<B: Default>(&self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol.name()));
        let accept = HeaderValue::from_str(&self.accept).expect("base64 is visible ASCII");
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        response
    }
}

/// Decides about an upgrade from the request's headers. The server's order in `served` wins, not the
/// client's.
pub fn negotiate(headers: &HeaderMap, served: &[Protocol]) -> Result<Handshake, Status> {
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(Status::bad_request("Upgrade request required"));
    }
    if tokens(headers, &UPGRADE).any(|t| t.to_ascii_lowercase().starts_with("spdy/")) {
        // Here SPDY/3.1 is going to be negotiated by X-Stream-Protocol-Version.
        return Err(Status::bad_request(
            "SPDY is not served by this server; connect by WebSocket (kubectl 1.30 or newer does)",
        ));
    }
    if !has_token(headers, &UPGRADE, "websocket") {
        return Err(Status::bad_request("Upgrade request required: websocket"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|v| v != "13") {
        return Err(Status::bad_request("unsupported WebSocket version: Sec-WebSocket-Version must be 13"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|k| k.to_str().ok()).map(str::trim).unwrap_or_default();
    let nonce = base64::engine::general_purpose::STANDARD.decode(key);
    if !nonce.is_ok_and(|nonce| nonce.len() == 16) {
        return Err(Status::bad_request("Sec-WebSocket-Key must be 16 bytes in base64"));
    }
    let offered: Vec<&str> = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    match served.iter().find(|p| offered.contains(&p.name())) {
        Some(&protocol) => Ok(Handshake { protocol, accept: accept_key(key) }),
        None => {
            let names: Vec<&str> = served.iter().map(|p| p.name()).collect();
            Err(Status::bad_request(format!(
                "unable to negotiate a WebSocket subprotocol: offered [{}], served [{}]",
                offered.join(", "),
                names.join(", ")
            )))
        }
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|t| t.eq_ignore_ascii_case(token))
}

fn accept_key(key: &str) -> String {
    let digest = sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// SHA-1 (FIPS 180-4 6.1), which RFC 6455 uses as a checksum against caches, not for security.
fn sha1(data: &[u8]) -> [u8; 20] {
    let mut message = data.to_vec();
    message.push(0x80);
    message.resize((message.len() + 8).next_multiple_of(64), 0);
    let end = message.len();
    message[end - 8..].copy_from_slice(&(data.len() as u64 * 8).to_be_bytes());

    let mut hash: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in message.chunks_exact(64) {
        let mut words = [0u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for t in 16..80 {
            words[t] = (words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = hash;
        for (t, word) in words.iter().enumerate() {
            let (f, k) = match t {
                0..20 => ((b & c) | (!b & d), 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6u32),
            };
            let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (part, value) in hash.iter_mut().zip([a, b, c, d, e]) {
            *part = part.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(hash) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::stream::{EXEC_PROTOCOLS, PORT_FORWARD_PROTOCOLS};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    fn websocket(protocols: &str) -> HeaderMap {
        headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocols),
        ])
    }

    #[test]
    fn the_key_of_the_rfc_is_accepted() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let hex = |data: &[u8]| sha1(data).iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(
            hex(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "84983e441c3bd26ebaae4aa1f95129e5e54670f1"
        );
    }

    #[test]
    fn the_best_served_protocol_is_chosen() {
        let both = websocket("v4.channel.k8s.io, v5.channel.k8s.io");
        assert_eq!(negotiate(&both, EXEC_PROTOCOLS).unwrap().protocol, Protocol::V5);
        assert_eq!(negotiate(&both, PORT_FORWARD_PROTOCOLS).unwrap().protocol, Protocol::V4);
        let python = negotiate(&websocket("v4.channel.k8s.io"), EXEC_PROTOCOLS).unwrap();
        let response: Response<()> = python.response();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["sec-websocket-protocol"], "v4.channel.k8s.io");
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn refusals_are_statuses() {
        let spdy = headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]);
        let mut bad_key = websocket("v5.channel.k8s.io");
        bad_key.insert("sec-websocket-key", HeaderValue::from_static("c2hvcnQ="));
        let mut old = websocket("v5.channel.k8s.io");
        old.insert("sec-websocket-version", HeaderValue::from_static("8"));
        let table = [
            (HeaderMap::new(), "Upgrade request required"),
            (spdy, "SPDY is not served"),
            (headers(&[("connection", "upgrade"), ("upgrade", "h2c")]), "required: websocket"),
            (bad_key, "16 bytes"),
            (old, "must be 13"),
            (websocket("SPDY/3.1+portforward.k8s.io"), "unable to negotiate"),
        ];
        for (headers, expect) in table {
            let status = negotiate(&headers, EXEC_PROTOCOLS).unwrap_err();
            assert!(status.message.contains(expect), "{}", status.message);
            assert_eq!(status.code, 400);
        }
    }
}
