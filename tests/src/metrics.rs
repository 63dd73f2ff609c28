//! Reading a metrics page, as far as our own needs it.

/// Samples of a page.
#[derive(Clone, Debug, Default)]
pub struct Page(Vec<Sample>);

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

/// Reads the text format; lines that are no samples are passed over.
#[must_use]
pub fn parse(text: &str) -> Page {
    let sample = |line: &str| {
        let (head, value) = line.rsplit_once(' ')?;
        let (name, labels) = head.split_once('{').unwrap_or((head, ""));
        Some(Sample {
            name: name.to_owned(),
            labels: labels.to_owned(),
            value: value.parse().ok()?,
        })
    };
    Page(
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(sample)
            .collect(),
    )
}

impl Page {
    /// Sum of the samples of `name` that have all these labels.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &Sample| {
            labels
                .iter()
                .all(|(key, value)| sample.labels.contains(&format!("{key}=\"{value}\"")))
        };
        self.0
            .iter()
            .filter(|sample| sample.name == name && has(sample))
            .map(|s| s.value)
            .sum()
    }

    /// Packets that the kernel counted under `policy` for `reason`.
    #[must_use]
    pub fn packets(&self, policy: &str, reason: &str) -> f64 {
        self.sum(
            "limiterd_xdp_packets_total",
            &[("policy", policy), ("reason", reason)],
        )
    }
}
