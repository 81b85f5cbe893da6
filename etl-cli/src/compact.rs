//! `etl compact`: what do the logs come to? Makes current states of them, beside a pipeline that may be running.

use std::path::Path;
use std::process::ExitCode;

use etl_config::AppConfig;

use crate::args::Compact;
use crate::failure::Failure;
use crate::stdout::say;

pub(crate) async fn compact(config: &Path, args: &Compact) -> Result<ExitCode, Failure> {
    let made = AppConfig::load(config)?.compact().await?;
    if args.json {
        let made = serde_json::to_string(&made);
        say(&made.map_err(|error| Failure::Other(format!("what was made cannot be written: {error}")))?);
        return Ok(ExitCode::SUCCESS);
    }
    for table in &made {
        let files = table.files.len();
        say(&format!(
            "{}: {} {} in {files} {}",
            table.table,
            table.rows,
            if table.rows == 1 { "row" } else { "rows" },
            if files == 1 { "file" } else { "files" },
        ));
    }
    if made.is_empty() {
        say("every current state was up to date");
    }
    Ok(ExitCode::SUCCESS)
}
