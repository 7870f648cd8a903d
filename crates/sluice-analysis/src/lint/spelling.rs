//! What is wrong with a selector that matches nothing: it contradicts itself, or a label is written nearly right.

use std::collections::{BTreeMap, BTreeSet};

use sluice_selector::{LabelSelector, Operator, Selector};

use super::labels::LabelIndex;

/// Why no labels at all could satisfy the selector.
pub(super) fn contradiction(selector: &LabelSelector) -> Option<String> {
    let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (key, value) in &selector.match_labels {
        wanted.insert(key, BTreeSet::from([&**value]));
    }
    for requirement in selector.match_expressions.iter().filter(|r| r.operator == Operator::In) {
        let values: BTreeSet<&str> = requirement.values.iter().map(|value| &**value).collect();
        let known = wanted.entry(&requirement.key).or_insert_with(|| values.clone());
        *known = known.intersection(&values).copied().collect();
    }
    for requirement in &selector.match_expressions {
        let key = &*requirement.key;
        match requirement.operator {
            Operator::In => {}
            Operator::NotIn => {
                if let Some(known) = wanted.get_mut(key) {
                    known.retain(|value| !requirement.values.iter().any(|unwanted| **unwanted == **value));
                }
            }
            Operator::Exists | Operator::DoesNotExist => {
                let opposite = match requirement.operator {
                    Operator::Exists => Operator::DoesNotExist,
                    _ => Operator::Exists,
                };
                let opposed =
                    selector.match_expressions.iter().any(|r| r.operator == opposite && *r.key == *key);
                let valued = requirement.operator == Operator::DoesNotExist && wanted.contains_key(key);
                if opposed || valued {
                    return Some(format!("label {key:?} must be there and must not"));
                }
            }
        }
    }
    let empty = wanted.into_iter().find(|(_, values)| values.is_empty());
    empty.map(|(key, _)| format!("no value of label {key:?} satisfies all its conditions"))
}

/// The same for a Calico selector, as far as its outermost `&&` shows it.
pub(super) fn calico_contradiction(selector: &Selector) -> Option<String> {
    let alone = std::slice::from_ref(selector);
    let members: &[Selector] = if let Selector::And(members) = selector { members } else { alone };
    let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut narrow = |key, values: BTreeSet<_>| {
        let known: &mut BTreeSet<&str> = wanted.entry(key).or_insert_with(|| values.clone());
        *known = known.intersection(&values).copied().collect();
    };
    for member in members {
        match member {
            Selector::Equals(key, value) => narrow(key, BTreeSet::from([&**value])),
            Selector::In(key, values) => narrow(key, values.iter().map(|value| &**value).collect()),
            Selector::Not(inner) if **inner == Selector::All => return Some("!all() is never true".into()),
            _ => {}
        }
    }
    for member in members {
        match member {
            Selector::NotEquals(key, value) => {
                wanted.get_mut(&**key).into_iter().for_each(|values| values.retain(|one| *one != &**value));
            }
            Selector::NotIn(key, values) => {
                let unwanted = |value: &&str| values.iter().any(|one| **one == **value);
                wanted.get_mut(&**key).into_iter().for_each(|known| known.retain(|value| !unwanted(value)));
            }
            Selector::Not(inner) => {
                if let Selector::Has(key) = &**inner
                    && (wanted.contains_key(&**key) || members.contains(&Selector::Has(key.clone())))
                {
                    return Some(format!("label {key:?} must be there and must not"));
                }
            }
            _ => {}
        }
    }
    let empty = wanted.into_iter().find(|(_, values)| values.is_empty());
    empty.map(|(key, _)| format!("no value of label {key:?} satisfies all its conditions"))
}

/// What is unknown in a selector's conditions: a sentence, and what is nearly the same and known.
pub(super) struct Unknown {
    pub(super) sentence: String,
    pub(super) nearly: Option<String>,
}

/// The first label that the selector demands and nothing has.
pub(super) fn unknown(selector: &LabelSelector, known: &LabelIndex, of: &str) -> Option<Unknown> {
    let labels = selector.match_labels.iter().map(|(key, value)| (&**key, vec![&**value]));
    let expressions =
        selector.match_expressions.iter().filter_map(|requirement| match requirement.operator {
            Operator::In | Operator::Exists => {
                Some((&*requirement.key, requirement.values.iter().map(|value| &**value).collect()))
            }
            Operator::NotIn | Operator::DoesNotExist => None,
        });
    labels.chain(expressions).find_map(|(key, values)| unknown_label(key, &values, known, of))
}

/// The same for a Calico selector, as far as its outermost `&&` shows it.
pub(super) fn calico_unknown(selector: &Selector, known: &LabelIndex, of: &str) -> Option<Unknown> {
    let alone = std::slice::from_ref(selector);
    let members: &[Selector] = if let Selector::And(members) = selector { members } else { alone };
    members.iter().find_map(|member| match member {
        Selector::Has(key) => unknown_label(key, &[], known, of),
        Selector::Equals(key, value) => unknown_label(key, &[value], known, of),
        Selector::In(key, values) => {
            unknown_label(key, &values.iter().map(|value| &**value).collect::<Vec<_>>(), known, of)
        }
        _ => None,
    })
}

fn unknown_label(key: &str, values: &[&str], known: &LabelIndex, of: &str) -> Option<Unknown> {
    if !known.has_key(key) {
        let sentence = format!("no {of} has a label {key:?}");
        return Some(Unknown { sentence, nearly: nearest(key, known.keys()) });
    }
    if values.is_empty() || values.iter().any(|value| known.values(key).any(|one| one == *value)) {
        return None;
    }
    let sentence = format!("no {of} has label {key:?} with value {}", quoted(values));
    let nearly = values.iter().find_map(|value| nearest(value, known.values(key)));
    Some(Unknown { sentence, nearly })
}

fn quoted(values: &[&str]) -> String {
    values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(" or ")
}

/// Most candidates that are compared.
const MOST: usize = 4096;

/// The candidate that differs least from a word: in letter case, or by one change, or by two in a long word.
fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<String> {
    let allowed = match word.len() {
        0..3 => 0,
        3..7 => 1,
        _ => 2,
    };
    let folded = word.to_lowercase();
    // web-1 and web-2 are two things, no slip of the pen
    let spelt = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let letters = spelt(word);
    let mut near: Vec<(usize, &str)> = candidates
        .take(MOST)
        .filter(|candidate| *candidate != word && candidate.len().abs_diff(word.len()) <= allowed)
        .filter(|candidate| spelt(candidate) != letters)
        .map(|candidate| (distance(&folded, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .collect();
    near.sort_unstable();
    near.first().map(|(_, candidate)| (*candidate).to_owned())
}

/// The number of letters to insert, remove, change or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_the_same() {
        let near = |word: &str, known: &[&str]| nearest(word, known.iter().copied()).unwrap_or_default();
        assert_eq!(near("wbe", &["db", "web"]), "web");
        assert_eq!(near("Frontend", &["frontend", "backend"]), "frontend");
        assert_eq!(near("fronted", &["frontend", "front"]), "frontend");
        assert_eq!(near("app", &["apps", "apply"]), "apps");
        assert_eq!(near("web-1", &["web-2"]), "");
        assert_eq!(near("db", &["dc", "web"]), "");
        assert_eq!(near("x".repeat(200).as_str(), &["web"]), "");
    }

    #[test]
    fn contradictions() {
        let calico = |text: &str| calico_contradiction(&Selector::parse(text).unwrap()).is_some();
        assert!(calico("a == 'x' && a == 'y'"));
        assert!(calico("a in {'x', 'y'} && a not in {'x'} && a != 'y'"));
        assert!(calico("!has(a) && a == 'x'"));
        assert!(calico("a in {}"));
        assert!(calico("!all()"));
        assert!(!calico("a == 'x' && b == 'y'"));
        assert!(!calico("a == 'x' || a == 'y'"));
        assert!(!calico("a != 'x' && a != 'y'"));
    }
}
