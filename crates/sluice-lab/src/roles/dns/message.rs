//! The part of the DNS message format (RFC 1035, RFC 6891) that a server of small zones needs.

use std::net::IpAddr;

use super::zone::{Answer, Data, Kind, Record};

/// The largest answer by UDP: what fits every path without fragments.
const UDP_MAXIMUM: usize = 1232;
const UDP_MINIMUM: usize = 512;
const HEADER: usize = 12;

const NO_ERROR: u8 = 0;
const FORMAT_ERROR: u8 = 1;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;
const REFUSED: u8 = 5;

/// One question.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    id: [u8; 2],
    recursion_desired: bool,
    /// The question as it was asked: names are compared without case, and echoed with it.
    question: Vec<u8>,
    /// Lower case, labels joined by dots, without the final one.
    pub(super) name: String,
    pub(super) kind: Kind,
    edns: Option<usize>,
}

/// Why a message is no question that can be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not even a header, or itself an answer.
    Silence,
    Format,
    NotImplemented,
}

impl Refusal {
    pub(super) fn response(&self, request: &[u8]) -> Option<Vec<u8>> {
        let code = match self {
            Self::Silence => return None,
            Self::Format => FORMAT_ERROR,
            Self::NotImplemented => NOT_IMPLEMENTED,
        };
        let id = request.get(..2)?;
        let operation = request.get(2)? & 0x79;
        Some([id, &[0x80 | operation, code, 0, 0, 0, 0, 0, 0, 0, 0]].concat())
    }
}

impl Query {
    pub(super) fn parse(message: &[u8]) -> Result<Self, Refusal> {
        let header = message.get(..HEADER).ok_or(Refusal::Silence)?;
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        if header[2] & 0x80 != 0 {
            return Err(Refusal::Silence);
        }
        if header[2] & 0x78 != 0 {
            return Err(Refusal::NotImplemented);
        }
        if count(4) != 1 || count(6) != 0 || count(8) != 0 {
            return Err(Refusal::Format);
        }
        let (name, after) = read_name(message, HEADER).ok_or(Refusal::Format)?;
        let fixed = message.get(after..after + 4).ok_or(Refusal::Format)?;
        let kind = u16::from_be_bytes([fixed[0], fixed[1]]);
        let class = u16::from_be_bytes([fixed[2], fixed[3]]);
        let kind = if matches!(class, 1 | 255) { Kind::from_number(kind) } else { Kind::Other };
        Ok(Self {
            id: [header[0], header[1]],
            recursion_desired: header[2] & 1 != 0,
            question: message[HEADER..after + 4].to_vec(),
            name,
            kind,
            edns: edns_size(message, after + 4, count(10)),
        })
    }

    /// How large an answer by UDP may be.
    pub(super) fn udp_limit(&self) -> usize {
        self.edns.unwrap_or(UDP_MINIMUM).clamp(UDP_MINIMUM, UDP_MAXIMUM)
    }

    /// The answer as a message of at most `limit` bytes; what does not fit is left out and marked.
    pub(super) fn respond(&self, answer: &Answer, limit: usize) -> Vec<u8> {
        let (code, authoritative, answers, authority) = match answer {
            Answer::Records(records) => (NO_ERROR, true, records.as_slice(), None),
            Answer::NoData(origin) => (NO_ERROR, true, &[][..], Some(origin)),
            Answer::NoName(origin) => (NO_SUCH_NAME, true, &[][..], Some(origin)),
            Answer::Elsewhere => (REFUSED, false, &[][..], None),
            Answer::Failure => (SERVER_FAILURE, false, &[][..], None),
        };
        let flags = 0x80 | if authoritative { 4 } else { 0 } | u8::from(self.recursion_desired);
        let mut message = vec![self.id[0], self.id[1], flags, 0x80 | code, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&self.question);
        let option = if self.edns.is_some() { 11 } else { 0 };
        let mut written = 0_u16;
        for record in answers {
            let before = message.len();
            write_record(&mut message, record, &self.name);
            if message.len() + option > limit {
                message.truncate(before);
                message[2] |= 2;
                break;
            }
            written += 1;
        }
        message[6..8].copy_from_slice(&written.to_be_bytes());
        if let Some(origin) = authority {
            // RFC 2308: the zone's SOA says how long "there is none" may be remembered.
            write_record(&mut message, &Record::start_of(origin), &self.name);
            message[9] = 1;
        }
        if self.edns.is_some() {
            message.extend_from_slice(&[0, 0, 41]);
            message.extend_from_slice(&(UDP_MAXIMUM as u16).to_be_bytes());
            message.extend_from_slice(&[0, 0, 0, 0, 0, 0]);
            message[11] = 1;
        }
        message
    }
}

/// A name in lower case and where it ends. Compression is followed backwards only, so it ends.
fn read_name(message: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut at, mut end, mut name) = (start, None, String::new());
    loop {
        match *message.get(at)? {
            0 => return Some((name, end.unwrap_or(at + 1))),
            length @ 1..=63 => {
                let label = message.get(at + 1..at + 1 + usize::from(length))?;
                if name.len() + label.len() > 254 {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                // Names of the zone are plain; a byte that is not becomes one that matches nothing.
                name.extend(label.iter().map(|byte| match byte {
                    b'.' | 128.. => '\u{fffd}',
                    byte => byte.to_ascii_lowercase() as char,
                }));
                at += 1 + usize::from(length);
            }
            high @ 192.. => {
                let target = usize::from(high & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                if target >= at {
                    return None;
                }
                end.get_or_insert(at + 2);
                at = target;
            }
            _ => return None,
        }
    }
}

fn edns_size(message: &[u8], mut at: usize, additional: u16) -> Option<usize> {
    for _ in 0..additional {
        let (name, after) = read_name(message, at)?;
        let fixed = message.get(after..after + 10)?;
        if name.is_empty() && fixed[..2] == [0, 41] {
            return Some(usize::from(u16::from_be_bytes([fixed[2], fixed[3]])));
        }
        at = after + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    }
    None
}

fn write_record(message: &mut Vec<u8>, record: &Record, question: &str) {
    if record.name == question {
        // The question's name stands right after the header.
        message.extend_from_slice(&[0xc0, HEADER as u8]);
    } else {
        write_name(message, &record.name);
    }
    message.extend_from_slice(&record.data.kind().number().to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    message.extend_from_slice(&record.ttl.to_be_bytes());
    let length_at = message.len();
    message.extend_from_slice(&[0, 0]);
    match &record.data {
        Data::Address(IpAddr::V4(address)) => message.extend_from_slice(&address.octets()),
        Data::Address(IpAddr::V6(address)) => message.extend_from_slice(&address.octets()),
        Data::Name(target) | Data::Alias(target) => write_name(message, target),
        Data::Service { port, target } => {
            message.extend_from_slice(&[0, 0, 0, 100]);
            message.extend_from_slice(&port.to_be_bytes());
            write_name(message, target);
        }
        Data::Text(text) => {
            let text = &text.as_bytes()[..text.len().min(255)];
            message.push(text.len() as u8);
            message.extend_from_slice(text);
        }
        Data::Start { server, contact } => {
            write_name(message, server);
            write_name(message, contact);
            for field in [1_u32, 7200, 1800, 86_400, record.ttl] {
                message.extend_from_slice(&field.to_be_bytes());
            }
        }
    }
    let length = (message.len() - length_at - 2) as u16;
    message[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
}

fn write_name(message: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        message.push(label.len() as u8);
        message.extend_from_slice(label);
    }
    message.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn question(name: &str, kind: Kind, edns: Option<u16>) -> Vec<u8> {
        let mut message = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
        write_name(&mut message, name);
        message.extend_from_slice(&kind.number().to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        if let Some(size) = edns {
            message.extend_from_slice(&[0, 0, 41]);
            message.extend_from_slice(&size.to_be_bytes());
            message.extend_from_slice(&[0; 6]);
        }
        message
    }

    fn addresses(count: u8) -> Answer {
        let record = |last| Record {
            name: "a.b".to_owned(),
            ttl: 5,
            data: Data::Address(IpAddr::from([10, 0, 0, last])),
        };
        Answer::Records((0..count).map(record).collect())
    }

    #[test]
    fn a_question_is_read_without_case_and_answered_with_it() {
        let query = Query::parse(&question("A.b", Kind::A, None)).unwrap();
        assert_eq!((query.name.as_str(), query.kind), ("a.b", Kind::A));
        let answer = query.respond(&addresses(1), 512);
        assert_eq!(&answer[..12], &[7, 8, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(&answer[12..17], b"\x01A\x01b\0");
        assert_eq!(&answer[21..], &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 0]);
    }

    #[test]
    fn too_large_answers_are_cut_between_records_and_marked() {
        let query = Query::parse(&question("a.b", Kind::A, None)).unwrap();
        let answer = query.respond(&addresses(200), query.udp_limit());
        assert!(answer.len() <= 512 && answer[2] & 2 != 0);
        let count = usize::from(u16::from_be_bytes([answer[6], answer[7]]));
        assert_eq!(answer.len(), 12 + 9 + count * 16);
        let query = Query::parse(&question("a.b", Kind::A, Some(4096))).unwrap();
        assert_eq!(query.udp_limit(), 1232);
        let answer = query.respond(&addresses(200), 1232);
        assert!(answer.len() <= 1232 && answer.len() > 1200 && answer[11] == 1);
        assert_eq!(query.respond(&addresses(200), 65_535)[2] & 2, 0);
    }

    #[test]
    fn malformed_messages_are_refused_and_never_panic() {
        let good = question("a.b", Kind::A, Some(4096));
        for length in 0..good.len() {
            if let Err(refusal) = Query::parse(&good[..length]) {
                let _ = refusal.response(&good[..length]);
            }
            let mut damaged = good.clone();
            for value in [0, 0x3f, 0x40, 0xc0, 0xff] {
                damaged[length] = value;
                let _ = Query::parse(&damaged).map(|query| query.respond(&addresses(9), 512));
            }
        }
        // A name that points at itself.
        let mut looping = good.clone();
        looping[12..14].copy_from_slice(&[0xc0, 12]);
        assert_eq!(Query::parse(&looping), Err(Refusal::Format));
        let mut answer = good;
        answer[2] |= 0x80;
        assert_eq!(Query::parse(&answer), Err(Refusal::Silence));
        assert_eq!(Refusal::Silence.response(&answer), None);
    }
}
