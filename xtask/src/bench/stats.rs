//! Medians of a few figures.

/// The middle of `values`, or the mean of the two in the middle; 0 for none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    let lower = sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or_default();
    f64::midpoint(lower, upper)
}

/// `median [min..max]`.
pub(super) fn summary(values: &[f64]) -> String {
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.2} [{min:.2}..{max:.2}]", median(values))
}

#[cfg(test)]
mod tests {
    use super::{median, summary};

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]).to_string(), "2");
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]).to_string(), "2.5");
        assert_eq!(median(&[]).to_string(), "0");
        assert_eq!(summary(&[0.9, 0.7, 0.8]), "0.80 [0.70..0.90]");
    }
}
