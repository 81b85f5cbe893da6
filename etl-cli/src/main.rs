//! How does a person run it? The binary `etl`: reads the words, runs the verb, ends with an exit code.

mod args;
mod check;
mod compact;
mod control_socket;
#[cfg(feature = "duckdb")]
mod demo;
mod dlq;
mod failure;
mod gc;
mod http;
mod init;
mod operations;
#[cfg(feature = "profile")]
mod profiles;
mod progress;
mod run;
mod shown;
mod status;
mod stdout;
mod tables;
mod telemetry;
mod traces;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Verb};
use crate::failure::Failure;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody reads on where the pipe is broken.
            let _unread = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match perform(args) {
        Ok(code) => code,
        Err(failure) => {
            stdout::complain(&failure.to_string());
            failure.exit_code()
        }
    }
}

fn perform(args: Args) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(format!("the threads could not be started: {error}")))?;
    let result = match args.verb {
        Verb::Init(init) => init::init(&args.config, &init),
        Verb::Check(check) => runtime.block_on(check::check(&args.config, &check)),
        Verb::Run(run) => runtime.block_on(run::run(&args.config, &run)),
        Verb::Status(status) => runtime.block_on(status::status(&args.config, &status)),
        Verb::Compact(compact) => runtime.block_on(compact::compact(&args.config, &compact)),
        #[cfg(feature = "profile")]
        Verb::Profiles(profiles) => profiles::profiles(&profiles),
        #[cfg(not(feature = "profile"))]
        Verb::Profiles(_) => Err(Failure::Usage(
            "profiles need the feature `profile`; build it with `cargo build -p etl-cli --features profile`".to_owned(),
        )),
        Verb::Gc(gc) => runtime.block_on(gc::gc(&args.config, &gc)),
        Verb::Operations(words) => runtime.block_on(operations::operations(&args.config, words)),
        Verb::Dlq(words) => runtime.block_on(dlq::dlq(&args.config, words)),
        Verb::Tables(tables) => runtime.block_on(tables::tables(&args.config, &tables)),
        #[cfg(feature = "duckdb")]
        Verb::Demo(demo) => runtime.block_on(demo::demo(&demo)),
        #[cfg(not(feature = "duckdb"))]
        Verb::Demo(_) => Err(Failure::Usage(
            "the demo needs the feature `duckdb`; build it with `cargo build -p etl-cli --features duckdb`".to_owned(),
        )),
    };
    // What still runs is of no use to anybody, and may hang in a connection.
    runtime.shutdown_background();
    result
}
