//! Which words does `etl` understand?

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  etl init                                   write an etl.yaml to begin with
  etl check                                  look at config, source and destination; change nothing
  etl run                                    copy, then follow every change until told to stop
  etl -c shop.yaml run --until-caught-up     end once everything that is there now is there too
  etl status --watch                         how the running pipeline is doing
  etl tables resync public.orders            copy a table anew
  etl compact                                fold the logs of a Parquet lake into current states
  etl profiles show klaviyo                  what a system that answers later asks for
  etl operations list                        what is under way to a system that answers later
  etl dlq list                               the rows that were refused for good
  etl gc                                     what dead pipelines have left at the source

Exit codes: 0 done, 1 failed, 2 wrong usage or config, 3 stopped with tables in quarantine.";

/// A Postgres database, live in any destination: copies the published tables, then streams every change.
#[derive(Debug, Parser)]
#[command(name = "etl", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Args {
    /// The config.
    #[arg(short, long, global = true, value_name = "FILE", default_value = "./etl.yaml")]
    pub(crate) config: PathBuf,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write a config to begin with.
    #[command(after_help = "Examples:\n  etl init\n  etl -c shop.yaml init")]
    Init(Init),
    /// Look at config, source, destination and data directory, and say what is in the way.
    #[command(after_help = "Examples:\n  etl check\n  etl check --json | jq '.findings[]'")]
    Check(Check),
    /// Copy the published tables and follow every change. SIGTERM and Ctrl-C end it cleanly, a second one at once.
    #[command(
        after_help = "Examples:\n  etl run\n  etl run --until-caught-up\n  ETL__TELEMETRY__LOG__FORMAT=json etl run"
    )]
    Run(Run),
    /// Say how the running pipeline is doing.
    #[command(after_help = "Examples:\n  etl status\n  etl status --watch\n  etl status --json | jq .lag_seconds")]
    Status(Status),
    /// List the tables of the running pipeline, hold them back, let them go on, or copy them anew.
    #[command(
        after_help = "Examples:\n  etl tables list\n  etl tables pause public.orders\n  etl tables release public.orders\n  etl tables resync orders customers"
    )]
    Tables(Tables),
    /// Bring the current states up to date that the destination makes of its logs, while the pipeline runs or not.
    #[command(after_help = "Examples:\n  etl compact\n  etl compact --json | jq '.[].rows'")]
    Compact(Compact),
    /// List the profiles of systems that answer later, show what one asks for, or look whether one of your own is right.
    #[command(
        after_help = "Examples:\n  etl profiles list\n  etl profiles show klaviyo\n  etl profiles show klaviyo --toml > mine.toml\n  etl profiles lint mine.toml"
    )]
    Profiles(Profiles),
    /// List the slots, publications and states that pipelines have left, and remove those that no pipeline can use.
    #[command(after_help = "Examples:\n  etl gc\n  etl gc --yes\n  etl gc --yes etl_old_shop")]
    Gc(Gc),
    /// Look at the batches that are under way to a system that answers later, let held ones go on, or give them up.
    #[command(
        after_help = "Examples:\n  etl operations list --json | jq '.[] | select(.state == \"held\")'\n  etl operations show 3f2a\n  etl operations retry 3f2a\n  etl operations retry 3f2a --anew\n  etl operations abandon 3f2a"
    )]
    Operations(Operations),
    /// Look at the rows that were refused for good, hand them over again, or remove them.
    #[command(
        after_help = "Examples:\n  etl dlq list --table public.orders\n  etl dlq show 3f2a51c0-9d1e-8a44-b1c2-0f6e5d4c3b2a/17\n  etl dlq replay --all\n  etl dlq drop --table public.orders"
    )]
    Dlq(Dlq),
    /// Show it all on a throwaway Postgres and a DuckDB file, and compare the two in the end.
    #[command(after_help = "Examples:\n  etl demo\n  etl demo --rows 5000000 --seconds 20\n  etl demo --keep ./demo")]
    Demo(Demo),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    /// Replace a file that is there.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// One JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// End once everything that the source holds at the start is durable in the destination.
    #[arg(long)]
    pub(crate) until_caught_up: bool,
    /// Where the source does not go on where it was left (a lost or recreated slot, a restored backup, a promoted standby,
    /// another database), copy the tables again that this concerns, instead of refusing to start.
    #[arg(long)]
    pub(crate) resync_affected: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// One JSON object on standard output.
    #[arg(long)]
    pub(crate) json: bool,
    /// Again every second, until Ctrl-C.
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Tables {
    #[command(subcommand)]
    pub(crate) verb: TablesVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TablesVerb {
    /// Show every published table and its state.
    List(List),
    /// Hold tables back: their changes wait in the relay, on disk.
    Pause(Named),
    /// Let paused tables go on.
    Resume(Named),
    /// Try tables in quarantine again now.
    Release(Named),
    /// Copy tables anew, beside the stream; without a running pipeline, by the next run.
    Resync(Named),
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// One JSON array on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// `schema.table`, or the name alone where only one schema has it.
    #[arg(required = true, value_name = "TABLE")]
    pub(crate) tables: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Compact {
    /// One JSON array on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Profiles {
    #[command(subcommand)]
    pub(crate) verb: ProfilesVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProfilesVerb {
    /// Show the profiles that come with etl.
    List(List),
    /// Show what a profile asks for, what the system takes at a time, and which documents it was written by.
    Show(ShowProfile),
    /// Look whether profiles are right; each problem with its line.
    Lint(LintProfiles),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowProfile {
    /// As `etl profiles list` shows it.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The profile itself, to begin one of your own with.
    #[arg(long)]
    pub(crate) toml: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LintProfiles {
    /// TOML files.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// One JSON array on standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Gc {
    /// Remove what is dead, and what is asleep and named. What is live stays.
    #[arg(long)]
    pub(crate) yes: bool,
    /// One JSON array on standard output.
    #[arg(long)]
    pub(crate) json: bool,
    /// Only these: names of slots or publications, or ids of pipelines.
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Operations {
    #[command(subcommand)]
    pub(crate) verb: OperationsVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperationsVerb {
    /// Show what is under way and what was settled last.
    List {
        /// One JSON array on standard output.
        #[arg(long)]
        json: bool,
    },
    /// Show one: its batch on disk, what the system said, how often it was tried, when it is asked next.
    Show {
        /// Its name, or how that begins.
        id: String,
        /// How many rows of the batch.
        #[arg(long, default_value_t = 5)]
        rows: usize,
        /// One JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
    /// Let one go on that is held: the system is asked for it again, or it is submitted again where it was not handed over.
    Retry {
        /// Its name, or how that begins.
        id: String,
        /// Submit it again although the system may have it: its rows may be there twice then.
        #[arg(long)]
        anew: bool,
        /// How long the system may take where it is asked again.
        #[arg(long, value_name = "DURATION", default_value = "4h", value_parser = etl::duration::parse)]
        within: Duration,
    },
    /// Give one up that is held: its rows become dead letters, and its table goes on.
    Abandon {
        /// Its name, or how that begins.
        id: String,
        /// Its batch is gone from the disk, and so are its rows: only a new copy of the table brings them back.
        #[arg(long)]
        lost: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Dlq {
    #[command(subcommand)]
    pub(crate) verb: DlqVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DlqVerb {
    /// Show dead letters, a line each.
    List {
        /// Of this table.
        #[arg(long)]
        table: Option<String>,
        /// After this one: the rest of a longer list.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        most: u32,
        /// One JSON array on standard output, with the rows.
        #[arg(long)]
        json: bool,
    },
    /// Show one with its row.
    Show {
        /// Its name.
        id: String,
        /// One JSON object on standard output.
        #[arg(long)]
        json: bool,
    },
    /// Hand dead letters over once more. Those that a newer version of their row has overtaken are left out, and go.
    Replay(Letters),
    /// Remove dead letters for good.
    Drop(Letters),
}

/// Which dead letters.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Letters {
    /// These.
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// All of this table.
    #[arg(long)]
    pub(crate) table: Option<String>,
    /// All.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// About how many rows the sample shop has, over all its tables.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    pub(crate) rows: u64,
    /// How long the shop is open after the copy: inserts, updates, deletes, and a truncate.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// Leave the DuckDB file and its config in this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_words_do_not_contradict_each_other() {
        Args::command().debug_assert();
    }
}
