//! Writes the metrics page, in either of the two text formats that Prometheus reads: the classic one
//! (0.0.4), which every tool reads, and OpenMetrics 1.0, in which counters say that they are.
//!
//! They differ in what a counter's family is called, in what a metric without a type is called, and
//! in how the page ends.

use std::fmt::Write as _;

use super::family::{Declared, Family, Kind};

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Classic,
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header asks for: OpenMetrics if it names it, as Prometheus does.
    #[must_use]
    pub fn wanted(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Classic,
        }
    }

    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A sample's value.
#[derive(Clone, Copy, Debug)]
pub(in crate::admin) enum Value {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// How many values lie in which range.
#[derive(Clone, Debug)]
pub(in crate::admin) struct Spread {
    /// Sum of all values.
    pub sum: f64,
    /// Upper ends, and how many values are up to each and above the one before. The last end is
    /// infinite.
    pub buckets: Vec<(f64, u64)>,
}

/// A page that is being written.
#[derive(Debug)]
pub(in crate::admin) struct Page {
    text: String,
    format: Format,
}

impl Page {
    pub(super) const fn new(format: Format) -> Self {
        let text = String::new();
        Self { text, format }
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    /// A metric without labels.
    pub(in crate::admin) fn value(&mut self, family: &Family<0>, value: impl Into<Value>) {
        let none: [&str; 0] = [];
        self.rows(family, [(none, value)]);
    }

    /// A sample for each row of values of the labels.
    pub(in crate::admin) fn rows<const N: usize, L: AsRef<str>, V: Into<Value>>(
        &mut self,
        family: &Family<N>,
        rows: impl IntoIterator<Item = ([L; N], V)>,
    ) {
        self.rows_as(family, family.declared().name, rows);
    }

    /// The same under another name: where the metric is open, its name says more than is declared.
    pub(in crate::admin) fn rows_as<const N: usize, L: AsRef<str>, V: Into<Value>>(
        &mut self,
        family: &Family<N>,
        name: &str,
        rows: impl IntoIterator<Item = ([L; N], V)>,
    ) {
        let sample = self.begin(family.declared(), name);
        for (values, value) in rows {
            let labels = family.labels.into_iter().zip(&values);
            self.sample(&sample, labels, value.into());
        }
    }

    /// The same, with rows that bring labels of their own behind those that are declared.
    pub(in crate::admin) fn open_rows<'a, const N: usize, L: AsRef<str>, V: Into<Value>>(
        &mut self,
        family: &Family<N>,
        rows: impl IntoIterator<Item = ([L; N], Vec<(String, &'a str)>, V)>,
    ) {
        let sample = self.begin(family.declared(), family.declared().name);
        for (values, more, value) in rows {
            let declared = family
                .labels
                .into_iter()
                .zip(values.iter().map(AsRef::as_ref));
            let more = more.iter().map(|(label, value)| (label.as_str(), *value));
            self.sample(&sample, declared.chain(more), value.into());
        }
    }

    pub(in crate::admin) fn histograms<const N: usize, L: AsRef<str>>(
        &mut self,
        family: &Family<N>,
        rows: impl IntoIterator<Item = ([L; N], Spread)>,
    ) {
        let name = self.begin(family.declared(), family.declared().name);
        for (values, spread) in rows {
            let labels = || {
                let labels = family.labels.into_iter();
                labels.zip(values.iter().map(AsRef::as_ref))
            };
            let mut below = 0;
            for (end, count) in &spread.buckets {
                below += count;
                let end = if end.is_finite() {
                    format!("{end:?}")
                } else {
                    "+Inf".to_owned()
                };
                let all = labels().chain([("le", end.as_str())]);
                self.sample(&format!("{name}_bucket"), all, below.into());
            }
            self.sample(&format!("{name}_sum"), labels(), spread.sum.into());
            self.sample(&format!("{name}_count"), labels(), below.into());
        }
    }

    /// What stands before the samples of a metric; how they are called.
    fn begin(&mut self, declared: &Declared, name: &str) -> String {
        let is_counter = declared.kind == Kind::Counter;
        let sample = if is_counter {
            format!("{name}_total")
        } else {
            name.to_owned()
        };
        let of_others = matches!(declared.kind, Kind::Known | Kind::KnownGauge);
        let kind = match self.format {
            Format::OpenMetrics if of_others => "unknown",
            Format::Classic if of_others => "untyped",
            _ => declared.kind.name(),
        };
        let family = match self.format {
            Format::OpenMetrics => name,
            Format::Classic => sample.as_str(),
        };
        let help = escaped(declared.help);
        self.line(format_args!("# HELP {family} {help}"));
        self.line(format_args!("# TYPE {family} {kind}"));
        sample
    }

    fn sample<'a, L: AsRef<str> + 'a>(
        &mut self,
        name: &str,
        labels: impl IntoIterator<Item = (&'a str, L)>,
        value: Value,
    ) {
        self.text.push_str(name);
        let mut before = '{';
        for (label, value) in labels {
            self.text.push(before);
            self.text.push_str(label);
            self.text.push_str("=\"");
            self.text
                .push_str(&escaped(value.as_ref()).replace('"', "\\\""));
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        match value {
            Value::Whole(value) => self.line(format_args!(" {value}")),
            Value::Real(value) => self.line(format_args!(" {value:?}")),
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _infallible = writeln!(self.text, "{line}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::metrics::catalogue;

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        page.rows(
            &catalogue::POLICY_RELOADS,
            [(["a\"b\\c\nd"], 1_u64), (["rejected"], 2)],
        );
        page.value(&catalogue::FLEET_NODES, 1_u64);
        page.rows(&catalogue::TCP_IDLE_TIMEOUT, [(["x"], 3_u64)]);
        let spread = Spread {
            sum: 0.5,
            buckets: vec![(0.1, 1), (1.0, 2), (f64::INFINITY, 3)],
        };
        page.histograms(&catalogue::RLS_RESPONSE_TIME, [(["m"], spread)]);
        page.finish()
    }

    #[test]
    fn a_page_is_written_in_the_format_that_is_asked_for() {
        let classic = page(Format::Classic);
        for line in [
            "# TYPE limiterd_policy_reloads_total counter\n",
            "\nlimiterd_policy_reloads_total{result=\"a\\\"b\\\\c\\nd\"} 1\n",
            "\nlimiterd_fleet_nodes 1\n",
            "\n# TYPE envoy_tcp_idle_timeout untyped\n",
            "_bucket{grpc_method=\"m\",le=\"0.1\"} 1\n",
            "_bucket{grpc_method=\"m\",le=\"1.0\"} 3\n",
            "_bucket{grpc_method=\"m\",le=\"+Inf\"} 6\n",
            "_sum{grpc_method=\"m\"} 0.5\n",
            "_count{grpc_method=\"m\"} 6\n",
        ] {
            assert!(classic.contains(line), "{line} in\n{classic}");
        }
        let open = page(Format::OpenMetrics);
        for line in [
            "# TYPE limiterd_policy_reloads counter\n",
            "\nlimiterd_policy_reloads_total{result=\"rejected\"} 2\n",
            "\n# TYPE envoy_tcp_idle_timeout unknown\n",
        ] {
            assert!(open.contains(line), "{line} in\n{open}");
        }
        assert!(open.ends_with("\n# EOF\n") && !classic.contains("EOF"));
    }

    #[test]
    fn prometheus_gets_open_metrics_and_others_the_classic_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::wanted(Some(prometheus)), Format::OpenMetrics);
        assert_eq!(Format::wanted(Some("*/*")), Format::Classic);
        assert_eq!(Format::wanted(None), Format::Classic);
    }
}
