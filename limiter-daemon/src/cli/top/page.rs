//! The daemon's metrics page, read.

use std::collections::BTreeMap;

/// Samples by name, in the order of the page.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::cli) struct Page(BTreeMap<String, Vec<Sample>>);

/// A value and its labels.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Sample {
    labels: Vec<(String, String)>,
    pub value: f64,
}

impl Page {
    /// Reads the OpenMetrics text format. What is no sample is passed over: a daemon of another
    /// version may say more.
    #[must_use]
    pub(in crate::cli) fn read(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, sample)) = sample(line) {
                page.0.entry(name).or_default().push(sample);
            }
        }
        page
    }

    /// The samples of `name`.
    #[must_use]
    pub(in crate::cli) fn all(&self, name: &str) -> &[Sample] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Their sum.
    #[must_use]
    pub(in crate::cli) fn sum(&self, name: &str) -> f64 {
        self.all(name).iter().map(|sample| sample.value).sum()
    }
}

impl Sample {
    /// The value of the label `key`; empty: it has none.
    #[must_use]
    pub(in crate::cli) fn label(&self, key: &str) -> &str {
        let found = self.labels.iter().find(|(name, _)| name == key);
        found.map_or("", |(_, value)| value)
    }
}

/// `name{key="value",...} number`; what may follow the number is not looked at.
fn sample(line: &str) -> Option<(String, Sample)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inner) => labels(inner)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name.to_owned(), Sample { labels, value }))
}

/// Labels up to their closing brace, and what is behind it.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, behind) = quoted_value(quoted)?;
        labels.push((name.to_owned(), value));
        rest = behind;
    }
}

/// The text up to a quotation mark that is not escaped, without its escapes, and what is behind it.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_label() {
        let page = Page::read(
            "# HELP a_total Things.\n# TYPE a counter\n\
             a_total{rule=\"ns/p/rule/0\",decision=\"ok\"} 12\n\
             a_total{rule=\"with \\\"quotes\\\", {braces} and \\\\\",decision=\"over\"} 3 1700.5\n\
             plain 1.5\nno sample\nbroken{rule=\"x} 1\n# EOF\n",
        );
        let [first, second] = page.all("a_total") else {
            panic!("{page:?}");
        };
        assert_eq!(first.label("rule"), "ns/p/rule/0");
        assert_eq!(first.label("none"), "");
        assert_eq!(second.label("rule"), "with \"quotes\", {braces} and \\");
        assert_eq!(page.sum("a_total"), 15.0);
        assert_eq!(page.sum("plain"), 1.5);
        assert_eq!(page.sum("absent"), 0.0);
        assert_eq!(page.0.len(), 2, "{page:?}");
    }
}
