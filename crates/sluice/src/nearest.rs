//! Names that somebody may have meant.

/// Letters in which what was typed may differ from a name: a third of it.
fn allowance(typed: &str) -> usize {
    (typed.chars().count() / 3).max(1)
}

/// `; did you mean NAME?` if a known name is close to what was typed, else nothing.
pub(crate) fn did_you_mean<'n>(typed: &str, known: impl Iterator<Item = &'n str>) -> String {
    let typed = typed.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&typed, &name.to_lowercase());
    let closest = known.map(|name| (distance(name), name)).min();
    match closest {
        Some((distance, name)) if distance <= allowance(&typed) => format!("; did you mean {name}?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::did_you_mean;

    #[test]
    fn what_is_close_is_named_and_what_is_far_is_not() {
        let known = ["shop/cart", "shop/checkout", "money/vault"];
        let meant = |typed: &str| did_you_mean(typed, known.into_iter());
        assert_eq!(meant("shop/chekout"), "; did you mean shop/checkout?");
        assert_eq!(meant("shpo/cart"), "; did you mean shop/cart?");
        assert_eq!(meant("elsewhere"), "");
        assert_eq!(did_you_mean("x", std::iter::empty()), "");
    }
}
