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

/// "did you mean `x`?", or else `intro` and all candidates.
pub(crate) fn remedy<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
    intro: &str,
) -> String {
    match nearest(word, candidates.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{intro} {}", listed(candidates)),
    }
}

/// The names, quoted and separated by commas.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.get(..LISTED) {
        Some(first) if names.len() > LISTED => {
            format!("{} and {} more", first.join(", "), names.len() - LISTED)
        }
        _ => names.join(", "),
    }
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
    }
}
