//! What somebody may have meant, or else what there is.

/// How many names a remedy lists at most.
const LISTED: usize = 12;

/// How alike two words must be for one to be taken for the other misspelt (Jaro-Winkler).
const ALIKE: f64 = 0.8;

/// The candidate nearest to `word`, if one is near.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::jaro_winkler(&lower, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// "did you mean `x`?", or "`what` may be ..." with all candidates.
pub(crate) fn remedy<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
    intro: &str,
) -> String {
    nearest(word, candidates.clone()).map_or_else(
        || {
            listed(candidates).map_or_else(
                || "there is none".to_owned(),
                |names| format!("{intro} {names}"),
            )
        },
        |near| format!("did you mean `{near}`?"),
    )
}

/// The names, quoted and separated by commas; `None` if there is none.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.into_iter().collect();
    let mut text = names
        .iter()
        .take(LISTED)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > LISTED {
        text.push_str(&format!(" and {} more", names.len() - LISTED));
    }
    (!names.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::{nearest, remedy};

    #[test]
    fn suggests_what_is_near_and_lists_what_is_not() {
        let units = ["Second", "Minute", "Hour"];
        assert_eq!(nearest("Minutes", units), Some("Minute"));
        assert_eq!(nearest("minute", units), Some("Minute"));
        assert_eq!(nearest("Fortnight", units), None);
        assert_eq!(
            remedy("zz", units, "one of"),
            "one of `Second`, `Minute`, `Hour`"
        );
        assert_eq!(remedy("zz", [], "one of"), "there is none");
    }
}
