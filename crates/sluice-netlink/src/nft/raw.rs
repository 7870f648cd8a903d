//! The kernel's own expressions, one enum variant each, and their bytes.

use super::table::Verdict;
use crate::attr::{self, Attrs, Writer, attrs};

/// Operators of `cmp` (and, for the first two, of `range`).
pub(crate) mod cmp {
    pub(crate) const EQ: u32 = 0;
    pub(crate) const NEQ: u32 = 1;
    pub(crate) const LTE: u32 = 3;
    pub(crate) const GTE: u32 = 5;
}

/// Register that takes a verdict.
pub(crate) const VERDICT_REGISTER: u32 = 0;

/// 4-byte slots in all registers together.
pub(crate) const SLOTS: u32 = 16;

/// The register that begins at a slot; the kernel names 16-byte aligned ones 1–4 and reports them so.
pub(crate) fn register(slot: u32) -> u32 {
    match slot % 4 {
        0 => 1 + slot / 4,
        _ => 8 + slot,
    }
}

/// The slot where a register begins.
pub(crate) fn slot(register: u32) -> Option<u32> {
    match register {
        1..=4 => Some((register - 1) * 4),
        8..=23 => Some(register - 8),
        _ => None,
    }
}

/// One kernel expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Raw {
    Meta {
        key: u32,
        dreg: u32,
    },
    MetaSet {
        key: u32,
        sreg: u32,
    },
    Ct {
        key: u32,
        dreg: u32,
        direction: Option<u8>,
    },
    CtSet {
        key: u32,
        sreg: u32,
    },
    Payload {
        base: u32,
        offset: u32,
        len: u32,
        dreg: u32,
    },
    Bitwise {
        sreg: u32,
        dreg: u32,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Cmp {
        sreg: u32,
        op: u32,
        data: Vec<u8>,
    },
    Range {
        sreg: u32,
        op: u32,
        from: Vec<u8>,
        to: Vec<u8>,
    },
    Lookup {
        sreg: u32,
        dreg: Option<u32>,
        set: String,
        invert: bool,
    },
    Immediate {
        dreg: u32,
        data: Vec<u8>,
    },
    Verdict(Verdict),
    Counter {
        packets: u64,
        bytes: u64,
    },
    Nat {
        kind: u32,
        family: u32,
        addr: Option<u32>,
        addr_max: Option<u32>,
        proto: Option<u32>,
        proto_max: Option<u32>,
        flags: u32,
    },
    Masquerade {
        flags: u32,
        ports: bool,
    },
    Log {
        group: Option<u16>,
        prefix: String,
    },
    Limit {
        rate: u64,
        unit: u64,
        burst: u32,
        packets: bool,
        over: bool,
    },
    Fib {
        dreg: u32,
        result: u32,
        flags: u32,
    },
    Numgen {
        dreg: u32,
        modulus: u32,
        kind: u32,
        offset: u32,
    },
    Notrack,
    Other(String),
}

const NAME: u16 = 1;
const DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// Expressions carry strings (set names, prefixes) whose length the callers bound.
impl Raw {
    /// Writes the expression as a list element.
    pub(crate) fn write(&self, w: &mut Writer) {
        const LIST_ELEM: u16 = 1;
        w.nest(LIST_ELEM, |w| {
            w.text(NAME, self.name());
            w.nest(DATA, |w| self.write_data(w));
        });
    }

    fn name(&self) -> &str {
        match self {
            Raw::Meta { .. } | Raw::MetaSet { .. } => "meta",
            Raw::Ct { .. } | Raw::CtSet { .. } => "ct",
            Raw::Payload { .. } => "payload",
            Raw::Bitwise { .. } => "bitwise",
            Raw::Cmp { .. } => "cmp",
            Raw::Range { .. } => "range",
            Raw::Lookup { .. } => "lookup",
            Raw::Immediate { .. } | Raw::Verdict(_) => "immediate",
            Raw::Counter { .. } => "counter",
            Raw::Nat { .. } => "nat",
            Raw::Masquerade { .. } => "masq",
            Raw::Log { .. } => "log",
            Raw::Limit { .. } => "limit",
            Raw::Fib { .. } => "fib",
            Raw::Numgen { .. } => "numgen",
            Raw::Notrack => "notrack",
            Raw::Other(name) => name,
        }
    }

    fn write_data(&self, w: &mut Writer) {
        match self {
            Raw::Meta { key, dreg } => {
                w.be32(1, *dreg);
                w.be32(2, *key);
            }
            Raw::MetaSet { key, sreg } => {
                w.be32(2, *key);
                w.be32(3, *sreg);
            }
            Raw::Ct { key, dreg, direction } => {
                w.be32(1, *dreg);
                w.be32(2, *key);
                if let Some(direction) = direction {
                    w.attr(3, &[*direction]);
                }
            }
            Raw::CtSet { key, sreg } => {
                w.be32(2, *key);
                w.be32(4, *sreg);
            }
            Raw::Payload { base, offset, len, dreg } => {
                w.be32(1, *dreg);
                w.be32(2, *base);
                w.be32(3, *offset);
                w.be32(4, *len);
            }
            Raw::Bitwise { sreg, dreg, mask, xor } => {
                w.be32(1, *sreg);
                w.be32(2, *dreg);
                w.be32(3, mask.len() as u32);
                write_value(w, 4, mask);
                write_value(w, 5, xor);
            }
            Raw::Cmp { sreg, op, data } => {
                w.be32(1, *sreg);
                w.be32(2, *op);
                write_value(w, 3, data);
            }
            Raw::Range { sreg, op, from, to } => {
                w.be32(1, *sreg);
                w.be32(2, *op);
                write_value(w, 3, from);
                write_value(w, 4, to);
            }
            Raw::Lookup { sreg, dreg, set, invert } => {
                w.text(1, set);
                w.be32(2, *sreg);
                if let Some(dreg) = dreg {
                    w.be32(3, *dreg);
                }
                if *invert {
                    w.be32(5, 1);
                }
            }
            Raw::Immediate { dreg, data } => {
                w.be32(1, *dreg);
                write_value(w, 2, data);
            }
            Raw::Verdict(verdict) => {
                w.be32(1, VERDICT_REGISTER);
                write_verdict(w, 2, verdict);
            }
            Raw::Counter { packets, bytes } => {
                w.be64(1, *bytes);
                w.be64(2, *packets);
            }
            Raw::Nat { kind, family, addr, addr_max, proto, proto_max, flags } => {
                w.be32(1, *kind);
                w.be32(2, *family);
                for (attr, value) in [(3, addr), (4, addr_max), (5, proto), (6, proto_max)] {
                    if let Some(value) = value {
                        w.be32(attr, *value);
                    }
                }
                if *flags != 0 {
                    w.be32(7, *flags);
                }
            }
            Raw::Masquerade { flags, .. } => {
                if *flags != 0 {
                    w.be32(1, *flags);
                }
            }
            Raw::Log { group, prefix } => {
                if let Some(group) = group {
                    w.be16(1, *group);
                }
                if !prefix.is_empty() {
                    w.text(2, prefix);
                }
            }
            Raw::Limit { rate, unit, burst, packets, over } => {
                w.be64(1, *rate);
                w.be64(2, *unit);
                w.be32(3, *burst);
                w.be32(4, u32::from(!*packets));
                w.be32(5, u32::from(*over));
            }
            Raw::Fib { dreg, result, flags } => {
                w.be32(1, *dreg);
                w.be32(2, *result);
                w.be32(3, *flags);
            }
            Raw::Numgen { dreg, modulus, kind, offset } => {
                w.be32(1, *dreg);
                w.be32(2, *modulus);
                w.be32(3, *kind);
                w.be32(4, *offset);
            }
            Raw::Notrack | Raw::Other(_) => {}
        }
    }

    /// Reads one list element.
    pub(crate) fn read(elem: &[u8]) -> Raw {
        let name = attrs(elem).find(NAME).map(attr::text).unwrap_or_default();
        let data = attrs(attrs(elem).find(DATA).unwrap_or_default());
        Raw::read_data(&name, data).unwrap_or(Raw::Other(name))
    }

    fn read_data(name: &str, data: Attrs<'_>) -> Option<Raw> {
        let num = |kind| data.find(kind).and_then(attr::be32);
        let long = |kind| data.find(kind).and_then(attr::be);
        let value = |kind| data.find(kind).and_then(read_value);
        Some(match name {
            "meta" => match num(1) {
                Some(dreg) => Raw::Meta { key: num(2)?, dreg },
                None => Raw::MetaSet { key: num(2)?, sreg: num(3)? },
            },
            "ct" => match num(1) {
                Some(dreg) => {
                    Raw::Ct { key: num(2)?, dreg, direction: data.find(3).and_then(|b| b.first().copied()) }
                }
                None => Raw::CtSet { key: num(2)?, sreg: num(4)? },
            },
            // A source register means that the header is written, which Sluice never does.
            "payload" if data.find(5).is_none() => {
                Raw::Payload { base: num(2)?, offset: num(3)?, len: num(4)?, dreg: num(1)? }
            }
            // Operation 0 is mask-and-xor, the others are shifts and two-register forms.
            "bitwise" if num(6).unwrap_or(0) == 0 => {
                Raw::Bitwise { sreg: num(1)?, dreg: num(2)?, mask: value(4)?, xor: value(5)? }
            }
            "cmp" => Raw::Cmp { sreg: num(1)?, op: num(2)?, data: value(3)? },
            "range" => Raw::Range { sreg: num(1)?, op: num(2)?, from: value(3)?, to: value(4)? },
            "lookup" => Raw::Lookup {
                set: attr::text(data.find(1)?),
                sreg: num(2)?,
                dreg: num(3),
                invert: num(5).unwrap_or(0) & 1 != 0,
            },
            "immediate" => match num(1)? {
                VERDICT_REGISTER => Raw::Verdict(read_verdict(data.find(2)?)?),
                dreg => Raw::Immediate { dreg, data: value(2)? },
            },
            "counter" => Raw::Counter { bytes: long(1)?, packets: long(2)? },
            "nat" => Raw::Nat {
                kind: num(1)?,
                family: num(2)?,
                addr: num(3),
                addr_max: num(4),
                proto: num(5),
                proto_max: num(6),
                flags: num(7).unwrap_or(0),
            },
            "masq" => Raw::Masquerade { flags: num(1).unwrap_or(0), ports: num(2).is_some() },
            "log" => Raw::Log {
                group: data.find(1).and_then(attr::be).and_then(|n| u16::try_from(n).ok()),
                prefix: data.find(2).map(attr::text).unwrap_or_default(),
            },
            "limit" => Raw::Limit {
                rate: long(1)?,
                unit: long(2)?,
                burst: num(3).unwrap_or(0),
                packets: num(4).unwrap_or(0) == 0,
                over: num(5).unwrap_or(0) & 1 != 0,
            },
            "fib" => Raw::Fib { dreg: num(1)?, result: num(2)?, flags: num(3)? },
            "numgen" => {
                Raw::Numgen { dreg: num(1)?, modulus: num(2)?, kind: num(3)?, offset: num(4).unwrap_or(0) }
            }
            "notrack" => Raw::Notrack,
            _ => return None,
        })
    }
}

/// Writes nested data of a value.
pub(crate) fn write_value(w: &mut Writer, kind: u16, bytes: &[u8]) {
    w.nest(kind, |w| w.attr(DATA_VALUE, bytes));
}

/// Reads nested data of a value.
pub(crate) fn read_value(nest: &[u8]) -> Option<Vec<u8>> {
    attrs(nest).find(DATA_VALUE).map(<[u8]>::to_vec)
}

/// Writes nested data of a verdict.
pub(crate) fn write_verdict(w: &mut Writer, kind: u16, verdict: &Verdict) {
    let code: i32 = match verdict {
        Verdict::Drop => 0,
        Verdict::Accept => 1,
        Verdict::Continue => -1,
        Verdict::Jump(_) => -3,
        Verdict::Goto(_) => -4,
        Verdict::Return => -5,
    };
    w.nest(kind, |w| {
        w.nest(DATA_VERDICT, |w| {
            w.attr(1, &code.to_be_bytes());
            if let Some(chain) = verdict.target() {
                w.text(2, chain);
            }
        });
    });
}

/// Reads nested data of a verdict.
pub(crate) fn read_verdict(nest: &[u8]) -> Option<Verdict> {
    let verdict = attrs(attrs(nest).find(DATA_VERDICT)?);
    let chain = || verdict.find(2).map(attr::text);
    Some(match attr::be32(verdict.find(1)?)? as i32 {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -1 => Verdict::Continue,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        _ => return None,
    })
}
