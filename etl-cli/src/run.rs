//! `etl run`: copies, follows every change, and ends cleanly when it is told to.

use std::path::Path;
use std::process::ExitCode;

use etl::pipeline::{Finished, PipelineHandle, PipelineStatus, RunningPipeline};
use etl::{EtlError, EtlResult};
use etl_config::AppConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::Run;
use crate::control_socket::ControlSocket;
use crate::failure::{Failure, QUARANTINED};
use crate::http;
use crate::progress::{Lines, Progress};
use crate::shown::Shown;
use crate::stdout::complain;
use crate::telemetry;
use crate::traces::Sender;

pub(crate) async fn run(config: &Path, args: &Run) -> Result<ExitCode, Failure> {
    let config = AppConfig::load(config)?;
    let progress = Progress::new(Lines::Logged);
    let traces = config.telemetry.traces.as_ref().map(|traces| Sender::new(traces, &config.pipeline.id)).transpose()?;
    telemetry::start(config.telemetry.log, traces.as_ref(), &progress.bars, progress.is_terminal);
    let shown = Shown::default();
    if let Some(http) = &config.telemetry.http {
        http::serve(http, shown.clone()).await?;
    }
    let data_dir = config.pipeline.data_dir.clone();
    let mut signals = Signals::new()?;
    let started = async {
        let (pipeline, desk) = config.connect_with_desk().await?;
        Ok::<_, EtlError>((pipeline.resync_affected(args.resync_affected).start().await?, desk))
    };
    let (running, desk) = tokio::select! {
        started = started => started?,
        () = signals.next() => return Err(Failure::Other("stopped before the pipeline had started".to_owned())),
    };
    let handle = running.handle();
    shown.started(handle.clone(), desk);
    let socket = listen(&data_dir);
    let answering = async {
        match &socket {
            Some(socket) => match socket.serve(&shown).await {},
            None => std::future::pending().await,
        }
    };
    let finished = tokio::select! {
        finished = follow(running, &progress, signals, args.until_caught_up) => finished?,
        never = answering => never,
    };
    Ok(exit_code(&finished, &handle.status()))
}

/// A pipeline runs without being spoken to where there can be no socket.
fn listen(data_dir: &Path) -> Option<ControlSocket> {
    let opened = ControlSocket::open(data_dir);
    if let Err(error) = &opened {
        tracing::warn!(%error, data_dir = %data_dir.display(), "`etl status` and `etl tables` will not reach this run");
    }
    opened.ok()
}

/// Waits for the end of a run, which signals and the wish to end when caught up may bring about.
async fn follow(
    running: RunningPipeline,
    progress: &Progress,
    signals: Signals,
    until_caught_up: bool,
) -> EtlResult<Finished> {
    let handle = running.handle();
    tokio::select! {
        finished = running.wait() => finished,
        never = progress.follow(&handle) => match never {},
        never = obey(signals, &handle) => match never {},
        never = end_when_caught_up(&handle, until_caught_up) => match never {},
    }
}

async fn obey(mut signals: Signals, handle: &PipelineHandle) -> std::convert::Infallible {
    signals.next().await;
    tracing::info!("ending: what was read is being written; a second signal ends at once");
    handle.shutdown();
    signals.next().await;
    tracing::warn!("ending at once; the next run goes on from the last durable position");
    handle.abort();
    std::future::pending().await
}

async fn end_when_caught_up(handle: &PipelineHandle, wanted: bool) -> std::convert::Infallible {
    if wanted && handle.caught_up().await.is_ok() {
        tracing::info!(confirmed = %handle.status().confirmed, "caught up");
        handle.shutdown();
    }
    std::future::pending().await
}

fn exit_code(finished: &Finished, status: &PipelineStatus) -> ExitCode {
    if finished.aborted {
        complain(match status.mode {
            "full_refresh" => "error: ended before everything was copied; nothing of it is shown",
            _ => "error: ended before everything was written; the next run goes on from the last durable position",
        });
        return ExitCode::FAILURE;
    }
    if finished.quarantined.is_empty() {
        return ExitCode::SUCCESS;
    }
    for table in status.tables.iter().filter(|table| finished.quarantined.contains(&table.id)) {
        let reason = table.error.as_ref().map_or("no reason was kept", |error| error.message.as_str());
        complain(&format!("error: table {} is in quarantine: {reason}", table.name));
    }
    ExitCode::from(QUARANTINED)
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::Other(format!("signals cannot be heard: {error}")));
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for one of them.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
