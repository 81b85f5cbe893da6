//! `etl tables`: which tables are there, and what are they to do? Lists, pauses, resumes, releases, copies anew.

use std::path::Path;
use std::process::ExitCode;

use etl_config::AppConfig;
use serde_json::Value;

use crate::args::{Tables, TablesVerb};
use crate::control_socket::{Answer, Request, ask};
use crate::failure::Failure;
use crate::status::{not_running, table_lines};
use crate::stdout::say;

pub(crate) async fn tables(config: &Path, args: &Tables) -> Result<ExitCode, Failure> {
    let config = AppConfig::load(config)?;
    match &args.verb {
        TablesVerb::List(list) => self::list(&config, list.json).await,
        TablesVerb::Pause(named) => each(&config, &named.tables, "paused", |table| Request::Pause { table }).await,
        TablesVerb::Resume(named) => each(&config, &named.tables, "goes on", |table| Request::Resume { table }).await,
        TablesVerb::Release(named) => {
            each(&config, &named.tables, "is tried again", |table| Request::Release { table }).await
        }
        TablesVerb::Resync(named) => resync(&config, &named.tables).await,
    }
}

async fn list(config: &AppConfig, is_json: bool) -> Result<ExitCode, Failure> {
    let data_dir = &config.pipeline.data_dir;
    match ask(data_dir, &Request::Status).await? {
        Some(Answer::Status(status)) if is_json => {
            say(&status.get("tables").unwrap_or(&Value::Null).to_string());
            Ok(ExitCode::SUCCESS)
        }
        Some(Answer::Status(status)) => {
            table_lines(&status).iter().for_each(|line| say(line));
            Ok(ExitCode::SUCCESS)
        }
        Some(Answer::Refused { why, is_usage }) => Err(Answer::failure(why, is_usage)),
        Some(Answer::Done | Answer::Found(_)) => Err(Failure::Other("the pipeline is starting; ask again".to_owned())),
        None => Err(not_running(config)),
    }
}

async fn each(
    config: &AppConfig,
    tables: &[String],
    done: &str,
    request: impl Fn(String) -> Request,
) -> Result<ExitCode, Failure> {
    for table in tables {
        match ask(&config.pipeline.data_dir, &request(table.clone())).await? {
            Some(Answer::Done | Answer::Status(_) | Answer::Found(_)) => say(&format!("{table} {done}")),
            Some(Answer::Refused { why, is_usage }) => return Err(Answer::failure(why, is_usage)),
            None => return Err(not_running(config)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Without a running pipeline the next start copies the tables anew.
async fn resync(config: &AppConfig, tables: &[String]) -> Result<ExitCode, Failure> {
    if ask(&config.pipeline.data_dir, &Request::Status).await?.is_some() {
        return each(config, tables, "is copied anew", |table| Request::Resync { table }).await;
    }
    for name in config.resync(tables).await? {
        say(&format!("{name} is copied anew by the next `etl run`"));
    }
    Ok(ExitCode::SUCCESS)
}
