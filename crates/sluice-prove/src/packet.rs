//! The bytes of probes: a DNS question, an ICMP echo.

/// A DNS question of type A for `name`, with recursion desired.
pub(crate) fn dns_question(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend(id.to_be_bytes());
    bytes.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|l| !l.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        bytes.push(label.len() as u8);
        bytes.extend(label);
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// An ICMP echo request (type 8) with its checksum; for ICMPv6 (type 128) the kernel computes the checksum.
pub(crate) fn echo_request(v6: bool, id: u16, sequence: u16) -> Vec<u8> {
    let mut bytes = vec![if v6 { 128 } else { 8 }, 0, 0, 0];
    bytes.extend(id.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(b"sluice probe");
    if !v6 {
        let sum = checksum(&bytes);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// Is this packet, as a raw socket gives it (IPv4 with its header), the echo reply to `id`?
pub(crate) fn is_echo_reply(v6: bool, id: u16, packet: &[u8]) -> bool {
    let header = if v6 { 0 } else { packet.first().map_or(0, |b| usize::from(b & 0x0f) * 4) };
    let Some(icmp) = packet.get(header..) else { return false };
    let wanted = if v6 { 129 } else { 0 };
    icmp.first() == Some(&wanted) && icmp.get(4..6) == Some(&id.to_be_bytes()[..])
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = bytes.chunks(2).fold(0u32, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_sums_to_zero() {
        assert_eq!(checksum(&echo_request(false, 7, 1)), 0);
    }

    #[test]
    fn a_reply_is_known_by_type_and_id() {
        let mut packet = vec![0x45; 20];
        packet.extend([0, 0, 0, 0, 0, 7, 0, 1]);
        assert!(is_echo_reply(false, 7, &packet));
        assert!(!is_echo_reply(false, 8, &packet));
        assert!(!is_echo_reply(false, 7, &packet[..22]));
        assert!(is_echo_reply(true, 7, &[129, 0, 0, 0, 0, 7, 0, 1]));
    }

    #[test]
    fn a_question_names_its_labels() {
        let question = dns_question(0x1234, "a.bc");
        assert_eq!(&question[12..], [1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1]);
    }
}
