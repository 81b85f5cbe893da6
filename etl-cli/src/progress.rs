//! How far is it? A bar a table on a terminal, a line now and then elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use etl::clock;
use etl::pipeline::{PipelineHandle, PipelineStatus, TableStatus};
use etl::schema::TableId;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::stdout::say;

/// How often bars move.
const TICK: Duration = Duration::from_millis(200);
/// How often a line is written while tables are copied.
const COPYING: Duration = Duration::from_secs(2);
/// How often a line is written once all tables are ready.
const FOLLOWING: Duration = Duration::from_secs(30);

/// Where the lines go, where there is no terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// Into the log, with fields.
    Logged,
    /// To standard output, as a sentence.
    #[cfg_attr(not(feature = "duckdb"), expect(dead_code, reason = "the demo says it so"))]
    Said,
}

/// Shows how a pipeline is doing.
pub(crate) struct Progress {
    pub(crate) bars: MultiProgress,
    pub(crate) is_terminal: bool,
    lines: Lines,
}

impl Progress {
    /// Bars where standard error is a terminal, lines elsewhere.
    pub(crate) fn new(lines: Lines) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bars: MultiProgress::with_draw_target(target), is_terminal, lines }
    }

    /// Shows the pipeline until the future is dropped.
    pub(crate) async fn follow(&self, handle: &PipelineHandle) -> std::convert::Infallible {
        if self.is_terminal { self.draw(handle).await } else { write_lines(handle, self.lines).await }
    }

    async fn draw(&self, handle: &PipelineHandle) -> std::convert::Infallible {
        let mut bars =
            Bars { all: &self.bars, tables: HashMap::new(), summary: self.bars.add(ProgressBar::no_length()) };
        bars.summary.set_style(ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| plain()));
        loop {
            bars.show(&handle.status());
            etl::retry::pause(TICK).await;
        }
    }
}

/// Bars are taken away when they are dropped with the future.
struct Bars<'b> {
    all: &'b MultiProgress,
    tables: HashMap<TableId, ProgressBar>,
    summary: ProgressBar,
}

impl Bars<'_> {
    fn show(&mut self, status: &PipelineStatus) {
        for table in &status.tables {
            match table.phase {
                "copying" | "catching_up" => self.show_table(table),
                _ => {
                    if let Some(bar) = self.tables.remove(&table.id) {
                        bar.finish_and_clear();
                    }
                }
            }
        }
        self.summary.set_message(summary(status));
        self.summary.tick();
    }

    fn show_table(&mut self, table: &TableStatus) {
        let (all, summary) = (self.all, &self.summary);
        let bar = self.tables.entry(table.id).or_insert_with(|| {
            let bar = all.insert_before(summary, ProgressBar::new(0));
            let look = "  {msg:32!} {bar:30} {human_pos:>12} of {human_len} rows  {per_sec}";
            bar.set_style(ProgressStyle::with_template(look).unwrap_or_else(|_| plain()));
            bar
        });
        bar.set_length(table.rows_estimated.unwrap_or_default().max(table.rows_copied));
        bar.set_position(table.rows_copied);
        bar.set_message(match &table.waits_for {
            Some(sessions) => format!("{} waits for {sessions}", table.name),
            None => table.name.to_string(),
        });
    }
}

impl Drop for Bars<'_> {
    fn drop(&mut self) {
        self.tables.values().for_each(ProgressBar::finish_and_clear);
        self.summary.finish_and_clear();
    }
}

fn plain() -> ProgressStyle {
    ProgressStyle::default_bar()
}

async fn write_lines(handle: &PipelineHandle, lines: Lines) -> std::convert::Infallible {
    let mut last = None;
    loop {
        let status = handle.status();
        let all_ready = status.tables.iter().all(|table| matches!(table.phase, "ready" | "removed"));
        let wait = if all_ready { FOLLOWING } else { COPYING };
        let is_due = last.is_none_or(|last| clock::monotonic().saturating_duration_since(last) >= wait);
        if !status.tables.is_empty() && is_due {
            last = Some(clock::monotonic());
            match lines {
                Lines::Logged => log(&status),
                Lines::Said => say(&format!("   {}", summary(&status))),
            }
        }
        etl::retry::pause(TICK).await;
    }
}

fn log(status: &PipelineStatus) {
    tracing::info!(
        tables = status.tables.len(),
        ready = count(status, "ready"),
        rows_copied = rows_copied(status),
        changes_written = status.changes_written,
        confirmed = %status.confirmed,
        "progress"
    );
}

fn count(status: &PipelineStatus, phase: &str) -> usize {
    status.tables.iter().filter(|table| table.phase == phase).count()
}

fn rows_copied(status: &PipelineStatus) -> u64 {
    status.tables.iter().map(|table| table.rows_copied).sum()
}

fn summary(status: &PipelineStatus) -> String {
    let (tables, ready) = (status.tables.len(), count(status, "ready"));
    let rows = indicatif::HumanCount(rows_copied(status));
    let changes = indicatif::HumanCount(status.changes_written);
    let mut text = format!("{ready} of {tables} tables live, {rows} rows copied, {changes} changes followed");
    if let Some(error) = &status.last_error {
        text.push_str(&format!("; {error}"));
    }
    text
}
