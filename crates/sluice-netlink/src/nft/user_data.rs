//! What `nft` keeps beside sets and rules so that it can print them; the kernel stores it unread.

use super::table::{KeyType, Set, SetData};
use crate::attr;

/// What nft keeps with a set so that it can print it: TLVs of type, length, value.
pub(crate) fn set_user_data(set: &Set) -> Vec<u8> {
    const KEY_BYTE_ORDER: u8 = 0;
    const DATA_BYTE_ORDER: u8 = 1;
    const KEY_TYPEOF: u8 = 3;
    const DATA_TYPEOF: u8 = 4;
    const EXPRESSION: u8 = 0;
    const EXPRESSION_DATA: u8 = 1;
    const EXPR_VERDICT: u32 = 1;
    const EXPR_NUMGEN: u32 = 23;
    let order = |types: &[KeyType]| match types {
        [one] => one.byte_order(),
        _ => 0,
    };
    let data_order = match &set.data {
        SetData::Values(types) => order(types),
        SetData::None | SetData::Verdict => 0,
    };
    let mut out = number_tlv(KEY_BYTE_ORDER, order(&set.key));
    out.extend(number_tlv(DATA_BYTE_ORDER, data_order));
    if set.key == [KeyType::Numgen] {
        let numgen = [number_tlv(0, 1), number_tlv(1, u32::MAX), number_tlv(2, 0)].concat();
        let key = [number_tlv(EXPRESSION, EXPR_NUMGEN), tlv(EXPRESSION_DATA, &numgen)].concat();
        out.extend(tlv(KEY_TYPEOF, &key));
        let data = [number_tlv(EXPRESSION, EXPR_VERDICT), tlv(EXPRESSION_DATA, &[])].concat();
        out.extend(tlv(DATA_TYPEOF, &data));
    }
    out
}

/// A rule's comment as nft's user data: type 0, a NUL-terminated string.
pub(crate) fn comment_user_data(comment: &str) -> Vec<u8> {
    tlv(0, &[comment.as_bytes(), &[0]].concat())
}

fn number_tlv(kind: u8, n: u32) -> Vec<u8> {
    tlv(kind, &n.to_ne_bytes())
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u8::try_from(value.len()).expect("comments have at most 127 bytes, the rest is fixed");
    [&[kind, len], value].concat()
}

/// The comment among nft's user data TLVs (type, length, value).
pub(crate) fn comment_of(mut user_data: &[u8]) -> Option<String> {
    loop {
        let (&[kind, len], rest) = user_data.split_first_chunk::<2>()?;
        let (value, rest) = rest.split_at_checked(usize::from(len))?;
        if kind == 0 {
            return Some(attr::text(value));
        }
        user_data = rest;
    }
}
