//! `etl init`: what does a config look like? Writes the sample and says what comes next.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::args::Init;
use crate::failure::Failure;
use crate::stdout::say;

pub(crate) fn init(config: &Path, args: &Init) -> Result<ExitCode, Failure> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    if args.force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let written = options.open(config).and_then(|mut file| file.write_all(etl_config::sample().as_bytes()));
    let shown = config.display();
    match written {
        Ok(()) => {
            say(&format!(
                "Wrote {shown}. Set DATABASE_URL, name your publication in it, then:\n  etl -c {shown} check\n  etl -c {shown} run"
            ));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Failure::Usage(format!("{shown} exists; `etl init --force` replaces it, `-c FILE` names another")))
        }
        Err(error) => Err(Failure::Other(format!("{shown} cannot be written: {error}"))),
    }
}
