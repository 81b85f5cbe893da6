//! Which values are of the right type and still wrong, and which exclude each other?

use etl::postgres::{ConnectOptions, TlsMode, TlsOptions};
use etl::relay::RelaySettings;
use etl_destinations::registry::DestinationConfig;
use etl_destinations::table_rules::Metadata;
use etl_destinations::write_mode::WriteMode;

use crate::app::{PipelineConfig, PostgresConfig, StoreConfig, Telemetry, Traces};
use crate::problems::Problem;
use crate::table_entry::{Defaults, TableEntry};
use crate::tree::{Content, Node};

fn is_no_list(hosts: &str) -> bool {
    ConnectOptions::new("", "", "").with_hosts(hosts, 1).is_err()
}

/// Looks at sections that could be read.
pub(crate) struct Checks<'t> {
    written: &'t Node,
    problems: &'t mut Vec<Problem>,
}

impl<'t> Checks<'t> {
    /// `written` is the tree as it was read, for places and values.
    pub(crate) fn new(written: &'t Node, problems: &'t mut Vec<Problem>) -> Self {
        Self { written, problems }
    }

    fn found(&mut self, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        let keys: Vec<&str> = path.split('.').collect();
        self.problems.push(Problem::new(path, message).at(&self.written.nearest(&keys).origin).hint(hint));
    }

    /// The same, with the value as it is written.
    fn found_value(&mut self, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.found(path, message, hint);
        let keys: Vec<&str> = path.split('.').collect();
        if let (Content::Scalar(scalar), Some(problem)) =
            (&self.written.nearest(&keys).content, self.problems.last_mut())
        {
            problem.value = Some(scalar.written.as_ref().unwrap_or(&scalar.text).clone());
        }
    }

    pub(crate) fn pipeline(&mut self, pipeline: &PipelineConfig) {
        let letters = pipeline.id.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'));
        if !letters || !(1..=40).contains(&pipeline.id.len()) {
            let message = "an id is 1 to 40 of the letters a to z, 0 to 9 and _";
            self.found_value("pipeline.id", message, "It becomes the slot's name, such as etl_shop");
        }
        if pipeline.data_dir.as_os_str().is_empty() {
            self.found_value("pipeline.data_dir", "here belongs a directory", "Such as ./etl-data");
        }
        let not_zero = [
            ("pipeline.batch.max_bytes", pipeline.batch.max_bytes.0),
            ("pipeline.batch.max_rows", pipeline.batch.max_rows as u64),
            ("pipeline.memory_limit", pipeline.memory_limit.0),
            ("pipeline.copy.tables_in_parallel", pipeline.copy.tables_in_parallel as u64),
            ("pipeline.copy.connections_per_table", pipeline.copy.connections_per_table as u64),
            ("pipeline.copy.chunk_bytes", pipeline.copy.chunk_bytes.0),
            ("pipeline.copy.snapshot_max_age", pipeline.copy.snapshot_max_age.as_millis().min(1) as u64),
            ("pipeline.copy.max_rows_per_second", pipeline.copy.max_rows_per_second.unwrap_or(1)),
            ("pipeline.copy.max_bytes_per_second", pipeline.copy.max_bytes_per_second.map_or(1, |most| most.0)),
        ];
        for (path, _) in not_zero.iter().filter(|(_, value)| *value == 0) {
            self.found_value(path, "it must be more than nothing", "Leave the key out for its default");
        }
        if pipeline.batch.max_bytes > pipeline.memory_limit {
            let message = format!("a batch of {} exceeds memory_limit", pipeline.batch.max_bytes);
            let hint = format!("Keep it within `memory_limit: {}`, or raise that", pipeline.memory_limit);
            self.found_value("pipeline.batch.max_bytes", message, hint);
        }
    }

    pub(crate) fn relay(&mut self, relay: &RelaySettings) {
        if relay.max_bytes.0 == 0 {
            self.found_value("relay.max_bytes", "it must be more than nothing", "Leave the key out for its default");
        }
    }

    /// Looks at the source; what is missing is said only where every key could be read (`is_whole`).
    pub(crate) fn source(&mut self, source: &PostgresConfig, is_whole: bool) {
        self.address(source, is_whole);
        match (&source.publication, source.tables.as_slice()) {
            (Some(_), [_, ..]) => {
                let hint = "Keep `publication` for one that exists, or `tables` for one that the pipeline keeps";
                self.found("source.postgres", "`publication` and `tables` exclude each other", hint);
            }
            (None, []) if is_whole => {
                let hint = "Name a `publication` that exists, or give `tables: [\"public.*\"]`";
                self.found("source.postgres", "neither `publication` nor `tables` is given", hint);
            }
            (Some(name), []) if name.is_empty() => {
                self.found("source.postgres.publication", "the name is empty", "Name a publication that exists");
            }
            _ => {}
        }
        if source.heartbeat.is_some_and(|interval| interval.is_zero()) {
            let hint = "Such as 30s; without the key there is none";
            self.found_value("source.postgres.heartbeat", "it must be more than nothing", hint);
        }
        if source.watch_every.is_some_and(|interval| interval.is_zero()) {
            let hint = "Such as 2s, which is what it is without the key";
            self.found_value("source.postgres.watch_every", "it must be more than nothing", hint);
        }
        if let Some(tls) = &source.tls {
            self.tls("source.postgres.tls", tls);
        }
        if let Some((key, why)) = source.wal_guard.problem() {
            let hint = "Thresholds rise: warn_at, slow_at, pause_at, limit";
            self.found_value(&format!("source.postgres.wal_guard.{key}"), why, hint);
        }
    }

    fn tls(&mut self, path: &str, tls: &TlsOptions) {
        if tls.ca.is_some() && matches!(tls.mode, Some(TlsMode::Disable | TlsMode::Prefer)) {
            let hint = "Write `mode: verify-full`, or leave `ca` out";
            self.found(&format!("{path}.ca"), "only verify-ca and verify-full look at certificates", hint);
        }
        if tls.certificate.is_some() != tls.key.is_some() {
            self.found(path, "`certificate` and `key` belong together", "Give both, or neither");
        }
    }

    fn address(&mut self, source: &PostgresConfig, is_whole: bool) {
        let parts = [
            ("`host`", source.host.is_some()),
            ("`port`", source.port.is_some()),
            ("`database`", source.database.is_some()),
            ("`user`", source.user.is_some()),
            ("`password`", source.password.is_some()),
        ];
        let given: Vec<&str> = parts.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        match &source.url {
            Some(_) if !given.is_empty() => {
                let message = format!("`url` and {} exclude each other", given.join(", "));
                let hint = "Keep either the url or the parts: host, port, database, user, password";
                self.found("source.postgres", message, hint);
            }
            Some(url) => {
                if let Err(error) = ConnectOptions::from_url_or_user(url.expose(), source.libpq.user.as_deref()) {
                    self.found("source.postgres.url", error.message(), error.hint_text().unwrap_or_default());
                }
            }
            None if source.host.as_deref().is_some_and(is_no_list) => {
                let hint = "Write names or addresses with commas between them, such as db1,db2:5433";
                self.found_value("source.postgres.host", "its port is not a number", hint);
            }
            None if source.host.is_none() && is_whole => {
                self.found("source.postgres", "`url` is missing", "Give `url`, or `host`, `user` and `database`");
            }
            None if source.user.is_none() && is_whole => {
                self.found("source.postgres", "`user` is missing", "Give the role that reads");
            }
            None => {}
        }
    }

    pub(crate) fn store(&mut self, store: &StoreConfig) {
        let StoreConfig::Postgres(postgres) = store else { return };
        if let Err(error) = ConnectOptions::from_url_or_user(postgres.url.expose(), postgres.libpq.user.as_deref()) {
            self.found("store.postgres.url", error.message(), error.hint_text().unwrap_or_default());
        }
        if postgres.schema.is_empty() || postgres.schema.len() > 63 || postgres.schema.starts_with("pg_") {
            let hint = "1 to 63 bytes that do not begin with pg_, such as etl";
            self.found_value("store.postgres.schema", "that is no name for a schema", hint);
        }
        if let Some(tls) = &postgres.tls {
            self.tls("store.postgres.tls", tls);
        }
    }

    pub(crate) fn telemetry(&mut self, telemetry: &Telemetry) {
        if let Some(traces) = &telemetry.traces {
            self.traces(traces);
        }
        let Some(http) = &telemetry.http else { return };
        if !http.bind.ip().is_loopback() && http.token.is_none() {
            let hint = "Add `token: ${ETL_HTTP_TOKEN}`, or bind to 127.0.0.1";
            self.found("telemetry.http.bind", "an address that others reach needs a token", hint);
        }
        if http.token.as_ref().is_some_and(|token| token.expose().is_empty()) {
            self.found("telemetry.http.token", "the token is empty", "Leave the key out, or give one");
        }
    }

    fn traces(&mut self, traces: &Traces) {
        if !traces.endpoint.starts_with("http://") {
            let hint = "Such as http://127.0.0.1:4318/v1/traces: a collector on this machine, which sends on with TLS";
            self.found_value("telemetry.traces.endpoint", "a collector is reached by http://", hint);
        }
        if traces.one_in == 0 {
            self.found_value("telemetry.traces.one_in", "it must be more than nothing", "1 sends every trace");
        }
    }

    pub(crate) fn destination(&mut self, destination: &DestinationConfig) {
        if let Some(feature) = destination.missing_feature() {
            let path = format!("destination.{}", destination.name());
            let hint = format!("Build it with `cargo build -p etl-cli --features {feature}`, or choose another");
            self.found(&path, format!("this etl was built without the feature `{feature}`"), hint);
        }
        for fault in destination.faults() {
            self.found(&format!("destination.{}.{}", destination.name(), fault.key), fault.what, fault.hint);
        }
    }

    /// Looks at write modes that the destination does not have.
    pub(crate) fn write_modes(&mut self, destination: &DestinationConfig, defaults: &Defaults, rules: &[TableEntry]) {
        let is_other = |mode: Option<WriteMode>| mode.is_some_and(|mode| mode != WriteMode::Append);
        let section = match (is_other(defaults.write_mode), rules.iter().any(|rule| is_other(rule.write_mode))) {
            _ if !destination.only_appends() => return,
            (true, _) => "defaults",
            (false, true) => "tables",
            (false, false) => return,
        };
        let hint = "Write `append`, or leave it out";
        self.found(section, format!("`{}` holds logs of changes, not current states", destination.name()), hint);
    }

    pub(crate) fn tables(&mut self, defaults: &Defaults, rules: &[TableEntry]) {
        if rules.iter().any(|rule| rule.tables.is_blank()) {
            let hint = "Write `match: public.users` or a pattern such as `public.*`";
            self.found("tables", "a rule whose `match` is empty", hint);
        }
        let soft = |mode: Option<WriteMode>| mode == Some(WriteMode::SoftDelete);
        let off = |metadata: &Option<Metadata>| *metadata == Some(Metadata::Off);
        let both = (soft(defaults.write_mode) && off(&defaults.metadata))
            || rules.iter().any(|rule| soft(rule.write_mode) && off(&rule.metadata));
        if both {
            let hint = "Leave `metadata` on there: `_CHANGE_TYPE` is what marks a deleted row";
            self.found("tables", "`soft_delete` without metadata columns", hint);
        }
    }
}
