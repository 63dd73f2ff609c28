//! What a metric is declared by.

/// How a metric's values are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start; its samples end in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How many values lie below bounds.
    Histogram,
    /// Grows as a counter does, under a name that others gave it: Envoy's do not end in `_total`,
    /// so no format can have them as counters.
    Known,
    /// Goes up and down, under a name of others that ends as a counter's does.
    KnownGauge,
}

impl Kind {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter | Self::Known => "counter",
            Self::Gauge | Self::KnownGauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric with `N` labels.
#[derive(Clone, Copy, Debug)]
pub struct Family<const N: usize> {
    declared: Declared,
    pub(super) labels: [&'static str; N],
}

/// A metric, whatever labels it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Without a counter's `_total`.
    pub name: &'static str,
    pub kind: Kind,
    /// What is counted or measured.
    pub unit: &'static str,
    pub help: &'static str,
    /// In the order of the values.
    pub labels: &'static [&'static str],
    /// Whether requests or files add to the name or to the labels; the help says how.
    pub open: bool,
}

/// A chapter of the catalogue: what it is about, and its metrics.
pub type Chapter = (&'static str, &'static [Declared]);

impl<const N: usize> Family<N> {
    pub(super) const fn new(declared: Declared, labels: [&'static str; N]) -> Self {
        Self { declared, labels }
    }

    #[must_use]
    pub const fn declared(&self) -> &Declared {
        &self.declared
    }
}

impl Declared {
    /// What its samples are called; a histogram's also have an ending.
    #[must_use]
    pub fn sample(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge | Kind::Histogram | Kind::Known | Kind::KnownGauge => self.name.to_owned(),
        }
    }
}

/// Declares metrics: `NAME: Kind "unit" "name" ["label", ...] "help";`, by chapter.
macro_rules! catalogue {
    ($($chapter:literal { $($id:ident: $kind:ident $unit:literal $name:literal [$($label:literal),*] $($open:ident)? $help:literal;)* })*) => {
        $($(
            pub const $id: Family<{ let labels: &[&str] = &[$($label),*]; labels.len() }> = Family::new(
                Declared {
                    name: $name,
                    kind: Kind::$kind,
                    unit: $unit,
                    help: $help,
                    labels: &[$($label),*],
                    open: catalogue!(@open $($open)?),
                },
                [$($label),*],
            );
        )*)*

        /// Every metric there is, by chapter.
        pub const ALL: &[Chapter] = &[$(($chapter, &[$(*$id.declared()),*])),*];
    };
    (@open) => { false };
    (@open open) => { true };
}

pub(super) use catalogue;
