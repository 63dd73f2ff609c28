//! Text or JSON, whichever is wanted at the moment.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::policy::plan::LogFormat;

/// Writes each line in the format of the moment.
#[derive(Clone, Debug)]
pub(super) struct Switch {
    is_json: Arc<AtomicBool>,
    text: Format<Full>,
    json: Format<Json>,
}

impl Switch {
    /// `colours`: text is for a terminal.
    pub(super) fn new(format: LogFormat, colours: bool) -> Self {
        let switch = Self {
            is_json: Arc::default(),
            text: Format::default().with_ansi(colours),
            json: Format::default().with_ansi(false).json(),
        };
        switch.set(format);
        switch
    }

    pub(super) fn set(&self, format: LogFormat) {
        let is_json = format == LogFormat::Json;
        self.is_json.store(is_json, Ordering::Relaxed);
    }
}

impl<S, N> FormatEvent<S, N> for Switch
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.is_json.load(Ordering::Relaxed) {
            self.json.format_event(context, writer, event)
        } else {
            self.text.format_event(context, writer, event)
        }
    }
}
