//! What does the process say about itself? Log lines on standard error, for people or for machines.

use std::io::{self, Write};

use etl_config::{Format, Level, Log};
use indicatif::MultiProgress;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Begins to log; lines go above the progress bars where there are some.
pub(crate) fn start(log: Log, bars: &MultiProgress, is_terminal: bool) {
    let lines = tracing_subscriber::fmt()
        .with_max_level(level(log.level))
        .with_target(false)
        .with_ansi(is_terminal)
        .with_writer(Above { bars: bars.clone() });
    // A second subscriber is refused, and the first one stays.
    let _already = match log.format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
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
