//! What does the process say about itself? Log lines on standard error, for people or for machines.

use std::io::{self, Write};

use etl_config::{Format, Level, Log};
use indicatif::MultiProgress;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::traces::Sender;

/// Begins to log, and to send traces where that is asked for; lines go above the progress bars where there are some.
pub(crate) fn start(log: Log, traces: Option<&Sender>, bars: &MultiProgress, is_terminal: bool) {
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(is_terminal)
        .with_writer(Above { bars: bars.clone() });
    let lines = match log.format {
        Format::Text => lines.with_filter(level(log.level)).boxed(),
        Format::Json => lines.json().flatten_event(true).with_filter(level(log.level)).boxed(),
    };
    let registry = tracing_subscriber::registry().with(lines);
    #[cfg(feature = "otlp")]
    let registry = registry.with(traces.map(Sender::layer));
    #[cfg(not(feature = "otlp"))]
    let _: Option<&Sender> = traces;
    // A second subscriber is refused, and the first one stays.
    let _already = registry.try_init();
}

fn level(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

/// Standard error, above the bars.
#[derive(Clone)]
struct Above {
    bars: MultiProgress,
}

impl Write for Above {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().lock().write_all(line)).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Above {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}
