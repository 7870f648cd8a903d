//! Netlink messages and attributes as bytes: writing into one growing buffer, reading without trust.

/// Flags of `nlmsghdr`.
pub(crate) mod flag {
    pub(crate) const REQUEST: u16 = 0x001;
    pub(crate) const ACK: u16 = 0x004;
    pub(crate) const DUMP_INTR: u16 = 0x010;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const REPLACE: u16 = 0x100;
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
    /// In an error message: the request's body is not echoed.
    pub(crate) const CAPPED: u16 = 0x100;
    /// In an error message: extended-ack attributes follow.
    pub(crate) const ACK_TLVS: u16 = 0x200;
}

pub(crate) const HEADER_LEN: usize = 16;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Rounds up to the 4 bytes that netlink aligns everything to.
pub(crate) fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// A buffer of whole netlink messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Overwrites bytes written before.
    pub(crate) fn patch(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// One message: `body` writes what follows the header.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, seq: u32, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        body(self);
        let len = u32::try_from(self.bytes.len() - start).expect("messages are chunked far below 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// `nfgenmsg` of the netfilter protocols.
    pub(crate) fn nfgen(&mut self, family: u8, res_id: u16) {
        let id = res_id.to_be_bytes();
        self.bytes.extend_from_slice(&[family, 0, id[0], id[1]]);
    }

    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).expect("attribute values are bounded by their callers");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// A NUL-terminated string.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attr(kind, &bytes);
    }

    pub(crate) fn be16(&mut self, kind: u16, value: u16) {
        self.attr(kind, &value.to_be_bytes());
    }

    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    pub(crate) fn be64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// A nested attribute; its content must stay below 64 KiB.
    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        body(self);
        let len =
            u16::try_from(self.bytes.len() - start).expect("nested attributes are bounded by their callers");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }
}

/// The attributes of a message or nest; ends at the first malformed one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attrs<'a> {
    rest: &'a [u8],
}

/// Reads attributes.
pub(crate) fn attrs(bytes: &[u8]) -> Attrs<'_> {
    Attrs { rest: bytes }
}

impl<'a> Attrs<'a> {
    /// The first attribute of this type.
    pub(crate) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        Iterator::find(&mut self, |(k, _)| *k == kind).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, _) = self.rest.split_at_checked(4)?;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & TYPE_MASK;
        let value = self.rest.get(4..len)?;
        self.rest = self.rest.get(align(len)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A big-endian number of at most 8 bytes, of whatever width the attribute has.
pub(crate) fn be(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        1..=8 => Some(bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b))),
        _ => None,
    }
}

/// A big-endian number of 32 bits.
pub(crate) fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

/// A string attribute without its terminating NUL; bytes that are no UTF-8 are replaced.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

/// The messages of one datagram; ends at the first malformed one.
pub(crate) fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let head = rest.get(..HEADER_LEN)?;
        let u32_at = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let u16_at = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
        let len = usize::try_from(u32_at(0)).ok()?;
        let message =
            Message { kind: u16_at(4), flags: u16_at(6), seq: u32_at(8), body: rest.get(HEADER_LEN..len)? };
        rest = rest.get(align(len)..).unwrap_or_default();
        Some(message)
    })
}
